"""Reads the tensors of a PyTorch .pth file with neither PyTorch nor trust in the file.

A .pth file is a zip archive: `<prefix>/data.pkl` is a pickle that describes the tensors, `<prefix>/data/<key>` holds their
numbers. A pickle is a program, so nothing it names is looked up: each name a YOLOX checkpoint needs stands for a small
function of this file that checks its arguments, and any other name ends the reading. The pickle yields descriptions only;
numbers are read afterwards, and only those of the model (an official file is half optimizer state).
"""

import dataclasses
import functools
import io
import math
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.save before PyTorch 1.6

_BFLOAT16 = "BFloat16Storage"
_STORAGE_DTYPES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    _BFLOAT16: np.dtype(np.uint16),  # numpy has no bfloat16: its bits
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_SCALAR_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")

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


# --- What a pickle may make ------------------------------------------------------------------------------------------


class _Sealed:
    """Refuses BUILD, the pickle instruction that sets attributes of an object."""

    def __setstate__(self, state: object) -> None:
        raise ValueError(f"it changes {self}")


@dataclasses.dataclass(frozen=True)
class _StorageType(_Sealed):
    name: str


@dataclasses.dataclass(frozen=True)
class _Storage(_Sealed):
    """A run of `count` numbers, in the member data/<key>."""

    type: _StorageType
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor(_Sealed):
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _OrderedDict(dict[Any, Any]):
    def __setstate__(self, state: object) -> None:
        """Drops the attributes: torch hangs `_metadata`, version numbers of its modules, on a state dict."""


@dataclasses.dataclass(frozen=True)
class _ScalarType:
    code: str

    def __setstate__(self, state: object) -> None:
        """Accepts what numpy writes for a plain little-endian number, which is no change."""
        if not (isinstance(state, tuple) and state[1:] in [(order, None, None, None, -1, -1, 0) for order in "<|"]):
            raise ValueError(f"it describes a number type by {state!r}")


@dataclasses.dataclass(frozen=True)
class _StandIn(_Sealed):
    """What the pickle gets for the name of a function or class: calling it calls ours."""

    name: str
    build: Callable[..., object]

    def __call__(self, *arguments: object) -> object:
        try:
            return self.build(*arguments)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"it calls {self.name} in a way no checkpoint does ({error})") from error


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, *_: Any) -> _Tensor:
    """For torch._utils._rebuild_tensor_v2."""
    _expect(isinstance(storage, _Storage), "storage", storage)
    _expect(_is_count(offset), "offset", offset)
    _expect(isinstance(shape, tuple) and all(map(_is_count, shape)), "shape", shape)
    _expect(isinstance(strides, tuple) and all(map(_is_count, strides)), "strides", strides)
    _expect(len(strides) == len(shape), "strides", strides)
    return _Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, requires_grad: Any, hooks: Any) -> _Tensor:
    """For torch._utils._rebuild_parameter."""
    _expect(isinstance(tensor, _Tensor), "tensor", tensor)
    return tensor


def _ordered_dict(items: Any = ()) -> _OrderedDict:
    """For collections.OrderedDict."""
    _expect(isinstance(items, list | tuple), "items", items)
    return _OrderedDict(items)


def _size(shape: Any) -> tuple[int, ...]:
    """For torch.Size."""
    _expect(isinstance(shape, list | tuple) and all(map(_is_count, shape)), "shape", shape)
    return tuple(shape)


def _scalar_type(code: Any, align: Any, copy: Any) -> _ScalarType:
    """For numpy.dtype."""
    _expect(code in _SCALAR_DTYPES, "type", code)
    return _ScalarType(code)


def _scalar(scalar_type: Any, value: Any) -> float | int | bool:
    """For numpy's scalar(): YOLOX's trainer saves `best_ap` as one."""
    _expect(isinstance(scalar_type, _ScalarType), "type", scalar_type)
    dtype = np.dtype(scalar_type.code).newbyteorder("<")
    _expect(isinstance(value, bytes) and len(value) == dtype.itemsize, "value", value)
    return np.frombuffer(value, dtype)[0].item()


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    """For _codecs.encode, by which protocol 2 writes bytes."""
    _expect(isinstance(text, str), "text", text)
    _expect(encoding == "latin1", "encoding", encoding)
    return text.encode("latin1")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _expect(condition: bool, what: str, found: object) -> None:
    if not condition:
        raise ValueError(f"{what} {found!r}")


_ALLOWED: dict[str, _Sealed] = {
    stand_in.name: stand_in
    for stand_in in (
        _StandIn("collections.OrderedDict", _ordered_dict),
        _StandIn("torch._utils._rebuild_tensor_v2", _tensor),
        _StandIn("torch._utils._rebuild_parameter", _parameter),
        _StandIn("torch.Size", _size),
        _StandIn("numpy.dtype", _scalar_type),
        _StandIn("numpy.core.multiarray.scalar", _scalar),
        _StandIn("numpy._core.multiarray.scalar", _scalar),  # its name from numpy 2 on
        _StandIn("_codecs.encode", _latin1_bytes),
    )
} | {f"torch.{name}": _StorageType(name) for name in _STORAGE_DTYPES}


class _Unpickler(pickle.Unpickler):
    """Makes descriptions of tensors out of a pickle, and finds no name but those of `_ALLOWED`."""

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        if wanted not in _ALLOWED:
            raise ValueError(f"it asks to run {wanted}: not a weights file")
        return _ALLOWED[wanted]

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType() as storage_type, str(key), str(), count) if _is_count(count):
                return _Storage(storage_type, key, count)
        raise ValueError(f"it refers to {pid!r}, which is not a tensor's storage")


# --- The archive -----------------------------------------------------------------------------------------------------


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
        """What was saved, with a `_Tensor` for each tensor."""
        described = io.BytesIO(self._read(self._root + "data.pkl"))
        try:
            return _Unpickler(described).load()
        except Exception as error:  # a wrong pickle may raise anything
            raise ValueError(f"{self.path} is refused and none of it was run: {error}") from error

    def array(self, tensor: _Tensor) -> np.ndarray:
        """The tensor's numbers, in C order and the machine's byte order."""
        storage = tensor.storage
        dtype = _STORAGE_DTYPES[storage.type.name].newbyteorder(self._byte_order)
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
        if storage.type.name != _BFLOAT16:
            return np.array(view, dtype.newbyteorder("="), order="C")
        numbers = np.empty(tensor.shape, np.float32)
        bits = numbers.view(np.uint32)
        np.left_shift(view, 16, out=bits, dtype=np.uint32)  # a bfloat16 is the upper half of a float32
        return numbers

    def _storage(self, storage: _Storage, itemsize: int) -> bytes:
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


def _state_dict(contents: object, path: Path) -> dict[str, _Tensor]:
    top = contents if isinstance(contents, dict) else {}
    tensors = top.get("model", top)
    if isinstance(tensors, dict) and tensors and all(isinstance(value, _Tensor) for value in tensors.values()):
        return tensors
    raise ValueError(
        f"{path} has no dict of tensors alone, neither under 'model' nor at its top level. "
        f"Its top-level keys: {', '.join(map(str, list(top)[:10])) or 'none'}"
    )
