"""Reads the tensors of a PyTorch .pth file without PyTorch and without running any code of the file.

A .pth file is a zip archive: `<prefix>/data.pkl` is a pickle that describes the tensors (torch_pickle.py lists what
it may contain), and `<prefix>/data/<key>` holds their numbers. Only the tensors of the model are read: half of an
official file is optimizer state.
"""

import functools
import io
import math
import reprlib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

import numpy as np

from yolox_jax import storage
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.weights.pickle_bounds import check_bounds
from yolox_jax.weights.torch_pickle import BFLOAT16, STORAGE_DTYPES, Storage, Tensor, Unpickler

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.save before PyTorch 1.6

_MOST_TIMES = 4  # arrays may have more bytes than the file: bfloat16 grows twofold, and tensors may share a storage

_AGAIN = "download or save the file again"


def load_pth(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a checkpoint by name, as arrays that own their memory; bfloat16 becomes float32.

    Takes them from under "model", where YOLOX saves them, or from the top level if the file holds only tensors. Runs no
    code of the file.

    Raises:
      UserError: the file is missing, damaged, or not a weights file.
    """
    with _Archive(Path(path)) as archive:
        tensors = _state_dict(archive.contents(), archive.path)
        archive.check_size(tensors.values())
        return {name: archive.array(tensor) for name, tensor in tensors.items()}


def verify_pth(path: str | Path) -> None:
    """Checks that `path` is a torch archive and that the checksums of all members are right.

    Raises:
      UserError: it is not, or one is wrong.
    """
    with _Archive(Path(path)) as archive:
        archive.verify()


class _Archive:
    """An open .pth file. Its methods raise a UserError that names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            storage.check_no_pointer(path)
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no file {path}", "give a .pth file") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error})", "give a .pth file") from error
        except (
            Exception
        ) as error:  # for a damaged file zipfile raises anything, and BadZipFile for another kind of file
            raise _other_kind_of_file(path) from error
        try:
            self._check_members()
        except UserError:
            self._zip.close()
            raise
        roots = [name.removesuffix("data.pkl") for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            self._zip.close()
            raise UserError(
                f"{path} is a zip file, but not a torch checkpoint: it has {len(roots)} members <name>/data.pkl",
                "give a .pth file",
            )
        self._root = roots[0]
        self._storages: dict[str, bytes] = {}  # tensors may share one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _check_members(self) -> None:
        """Checks that the members are plain bytes of the file, each of them once, as torch writes them."""
        num_bytes = self.path.stat().st_size
        for member in self._zip.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise UserError(f"{self.path}: {member.filename!r} is compressed or encrypted", _AGAIN)
        total = sum(member.file_size for member in self._zip.infolist())
        if total > num_bytes:
            raise UserError(f"{self.path} has {num_bytes} bytes, but states members of {total} bytes", _AGAIN)

    def verify(self) -> None:
        """Reads all members, whose checksums are compared, and the descriptions of the tensors."""
        _state_dict(self.contents(), self.path)
        for name in self._zip.namelist():
            self._read(name)

    def contents(self) -> object:
        """Returns the saved object, with a `Tensor` in place of each tensor."""
        pickled = self._read(self._root + "data.pkl")
        try:
            check_bounds(pickled)
            return Unpickler(io.BytesIO(pickled)).load()
        except Exception as error:  # a malformed pickle may raise anything
            raise UserError(
                f"{self.path} is refused and none of it was run: {error}",
                "if its origin is trusted, save only its tensors with PyTorch: torch.save(model.state_dict(), PATH)",
            ) from error

    def check_size(self, tensors: Iterable[Tensor]) -> None:
        """Checks that no array has more numbers than its storage, nor all of them many times the bytes of the file.

        So a small file cannot ask for any amount of memory, by a stride of 0 or by many tensors in one storage.
        """
        num_bytes, allowed = 0, _MOST_TIMES * self.path.stat().st_size
        for tensor in tensors:
            if math.prod(tensor.shape) > tensor.storage.count:
                raise UserError(f"{self.path}: a tensor is larger than its storage: {tensor.place}", _AGAIN)
            num_bytes += math.prod(tensor.shape) * STORAGE_DTYPES[tensor.storage.type.name].itemsize
        if num_bytes > allowed:
            raise UserError(f"{self.path}: its tensors have {num_bytes} bytes, many times those of the file", _AGAIN)

    def array(self, tensor: Tensor) -> np.ndarray:
        """Reads a tensor into an array in C order and the machine's byte order."""
        storage = tensor.storage
        dtype = STORAGE_DTYPES[storage.type.name].newbyteorder(self._byte_order)
        data = self._storage(storage, dtype.itemsize)
        try:
            view = np.ndarray(
                tensor.shape,
                dtype,
                buffer=data,
                offset=tensor.offset * dtype.itemsize,
                strides=[stride * dtype.itemsize for stride in tensor.strides],
            )
        except (ValueError, OverflowError) as error:  # numpy checks that the view stays inside
            raise UserError(f"{self.path}: a tensor does not fit its storage: {tensor.place}", _AGAIN) from error
        if storage.type.name != BFLOAT16:
            return np.array(view, dtype.newbyteorder("="), order="C")
        numbers = np.empty(tensor.shape, np.float32)
        bits = numbers.view(np.uint32)
        np.left_shift(view, 16, out=bits, dtype=np.uint32)  # a bfloat16 is the upper half of a float32
        return numbers

    def _storage(self, storage: Storage, itemsize: int) -> bytes:
        if storage.key not in self._storages:
            self._storages[storage.key] = self._read(f"{self._root}data/{storage.key}")
        data = self._storages[storage.key]
        if len(data) != storage.count * itemsize:
            raise UserError(
                f"{self.path}: data/{storage.key} has {len(data)} bytes instead of {storage.count} numbers of "
                f"{itemsize} bytes",
                _AGAIN,
            )
        return data

    @functools.cached_property
    def _byte_order(self) -> Literal["<", ">"]:
        if self._root + "byteorder" not in self._zip.namelist():
            return "<"  # PyTorch before 2.1 did not save it
        noted = self._read(self._root + "byteorder")
        if noted not in (b"little", b"big"):
            raise UserError(f"{self.path}: byteorder is {noted!r}, neither little nor big", _AGAIN)
        return "<" if noted == b"little" else ">"

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except KeyError as error:
            raise UserError(f"{self.path} lacks its member {_shown(name)}", _AGAIN) from error
        except Exception as error:  # for a damaged file zipfile raises anything
            raise UserError(f"{self.path} is damaged at {_shown(name)} ({error})", _AGAIN) from error


def _other_kind_of_file(path: Path) -> UserError:
    """Describes a file that is not a zip archive."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return UserError(f"{path} is empty", "download it again")
    if start.startswith(_ZIP_MAGIC):
        return UserError(f"{path} is cut off, as by a broken download", "download it again")
    if start.startswith(_LEGACY_MAGIC):
        return UserError(
            f"{path} has the format of PyTorch before 1.6",
            "if its origin is trusted, save it again with PyTorch: "
            'torch.save(torch.load("old.pth", map_location="cpu", weights_only=True), "new.pth")',
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return UserError(
            f"{path} is a web page, not weights", "open it to see the server's answer, then download the file itself"
        )
    return UserError(f"{path} is not a torch checkpoint: it begins with {start[:8]!r}", "give a .pth file")


def _state_dict(contents: object, path: Path) -> dict[str, Tensor]:
    top = contents if isinstance(contents, dict) else {}
    tensors = top.get("model", top)
    is_named = isinstance(tensors, dict) and tensors and all(map(_is_name, tensors))
    if is_named and all(isinstance(value, Tensor) for value in tensors.values()):
        return tensors
    keys = map(_shown, list(top)[:10])
    raise UserError(
        f"{path} has no dict of only tensors, neither under 'model' nor at its top level "
        f"(top-level keys: {', '.join(keys) or 'none'})",
        "save it as YOLOX does: torch.save({'model': model.state_dict()}, PATH)",
    )


def _shown(key: object) -> str:
    return key if isinstance(key, str) and _is_name(key) else reprlib.repr(key)


def _is_name(key: object) -> bool:
    return isinstance(key, str) and key.isascii() and key.isprintable()
