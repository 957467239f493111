"""Reads the tensors of a PyTorch .pth file with neither PyTorch nor trust in the file.

A .pth file is a zip archive: `<prefix>/data.pkl` is a pickle that describes the tensors (torch_pickle.py says what it may
contain), `<prefix>/data/<key>` holds their numbers, of which only the model's are read: an official file is half optimizer
state.
"""

import functools
import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Literal, Self

import numpy as np

from yolox_jax.weights.torch_pickle import BFLOAT16, STORAGE_DTYPES, Storage, Tensor, Unpickler

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.save before PyTorch 1.6

# What reading a damaged member raises: a wrong checksum, bad compressed data, an encrypted or an exotic member.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def load_pth(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by name, as arrays that own their memory; bfloat16 comes as float32.

    They are taken from under "model", as YOLOX saves them, or from the file's top level if it holds tensors only.
    No code of the file is run. Raises ValueError for anything but a whole weights file, saying what to do about it.
    """
    with _Archive(Path(path)) as archive:
        return {name: archive.array(tensor) for name, tensor in _state_dict(archive.contents(), archive.path).items()}


def verify_pth(path: str | Path) -> None:
    """Raises ValueError unless `path` is a torch archive all of whose members have their right checksum."""
    with _Archive(Path(path)) as archive:
        archive.verify()


class _Archive:
    """An open .pth file. Every ValueError it raises names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} {_what_it_is_instead(path)}") from error
        roots = [name.removesuffix("data.pkl") for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            self._zip.close()
            raise ValueError(f"{path} is a zip file, but no torch checkpoint: one member <name>/data.pkl was expected")
        self._root = roots[0]
        self._storages: dict[str, bytes] = {}  # tensors may share one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def verify(self) -> None:
        for name in self._zip.namelist():
            self._read(name)

    def contents(self) -> object:
        """What was saved, with a `Tensor` for each tensor."""
        described = io.BytesIO(self._read(self._root + "data.pkl"))
        try:
            return Unpickler(described).load()
        except Exception as error:  # a wrong pickle may raise anything
            raise ValueError(f"{self.path} is refused and none of it was run: {error}") from error

    def array(self, tensor: Tensor) -> np.ndarray:
        """The tensor's numbers, in C order and the machine's byte order."""
        storage = tensor.storage
        dtype = STORAGE_DTYPES[storage.type.name].newbyteorder(self._byte_order)
        place = f"shape {tensor.shape}, strides {tensor.strides}, offset {tensor.offset} in {storage.count} numbers"
        # Expanded tensors (stride 0) are refused too: with them a small file could ask for any amount of memory.
        if math.prod(tensor.shape) > storage.count:
            raise ValueError(f"{self.path}: a tensor is larger than its storage: {place}")
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
            raise ValueError(f"{self.path}: a tensor does not fit its storage: {place}") from error
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
            raise ValueError(
                f"{self.path}: data/{storage.key} has {len(data)} bytes where {storage.count} numbers of "
                f"{itemsize} bytes were announced: download or save the file again"
            )
        return data

    @functools.cached_property
    def _byte_order(self) -> Literal["<", ">"]:
        if self._root + "byteorder" not in self._zip.namelist():
            return "<"  # before PyTorch 2.1, which began to note it
        noted = self._read(self._root + "byteorder")
        if noted not in (b"little", b"big"):
            raise ValueError(f"{self.path}: byteorder is {noted!r}, neither little nor big")
        return "<" if noted == b"little" else ">"

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except KeyError as error:
            raise ValueError(f"{self.path} lacks its member {name}: download or save the file again") from error
        except _ZIP_ERRORS as error:
            raise ValueError(f"{self.path} is damaged at {name} ({error}): download or save the file again") from error


def _what_it_is_instead(path: Path) -> str:
    """What a file that is no zip archive looks like, and the way to a weights file."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "is empty: download it again"
    if start.startswith(_ZIP_MAGIC):
        return "is cut off, as by a broken download: download it again"
    if start.startswith(_LEGACY_MAGIC):
        return (
            "has the format of PyTorch before 1.6. If you trust its origin, save it anew with PyTorch: "
            'torch.save(torch.load("old.pth", map_location="cpu", weights_only=True), "new.pth")'
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, not weights: open it to see what the server said, then download the file itself"
    return f"is not a torch checkpoint: it begins with {start[:8]!r}"


def _state_dict(contents: object, path: Path) -> dict[str, Tensor]:
    top = contents if isinstance(contents, dict) else {}
    tensors = top.get("model", top)
    if isinstance(tensors, dict) and tensors and all(isinstance(value, Tensor) for value in tensors.values()):
        return tensors
    raise ValueError(
        f"{path} has no dict of tensors alone, neither under 'model' nor at its top level. "
        f"Its top-level keys: {', '.join(map(str, list(top)[:10])) or 'none'}"
    )
