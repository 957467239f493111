"""Reads the pickle of a PyTorch .pth file into descriptions of its tensors, without running any code that it names.

A pickle is a program that calls functions by name. Here each name that a YOLOX checkpoint needs is replaced by a small
function of this file that checks its arguments; any other name is an error.
"""

import dataclasses
import pickle
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

BFLOAT16 = "BFloat16Storage"
STORAGE_DTYPES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    BFLOAT16: np.dtype(np.uint16),  # as bits: numpy has no bfloat16
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_SCALAR_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class _Sealed:
    """Refuses BUILD, the pickle instruction that sets attributes."""

    def __setstate__(self, state: object) -> None:
        raise ValueError(f"it changes {self}")


@dataclasses.dataclass(frozen=True)
class _StorageType(_Sealed):
    name: str


@dataclasses.dataclass(frozen=True)
class Storage(_Sealed):
    """`count` consecutive numbers, in the member data/<key>."""

    type: _StorageType
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor(_Sealed):
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def place(self) -> str:
        """Describes the view, for messages."""
        return f"shape {self.shape}, strides {self.strides}, offset {self.offset} in {self.storage.count} numbers"


class _OrderedDict(dict[Any, Any]):
    def __setstate__(self, state: object) -> None:
        """Drops the attributes: torch adds `_metadata`, the versions of its modules, to a state dict."""


@dataclasses.dataclass(frozen=True)
class _ScalarType:
    code: str

    def __setstate__(self, state: object) -> None:
        """Accepts only what numpy writes for a plain little-endian number, which changes nothing."""
        if not (isinstance(state, tuple) and state[1:] in [(order, None, None, None, -1, -1, 0) for order in "<|"]):
            raise ValueError(f"it describes a number type by {_shown(state)}")


@dataclasses.dataclass(frozen=True)
class _StandIn(_Sealed):
    """Replaces a function or class that the pickle names: calling it calls `build`."""

    name: str
    build: Callable[..., object]

    def __call__(self, *arguments: object) -> object:
        try:
            return self.build(*arguments)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"it calls {self.name} in a way no checkpoint does ({error})") from error


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, *_: Any) -> Tensor:
    """Stands in for torch._utils._rebuild_tensor_v2."""
    _expect(isinstance(storage, Storage), "storage", storage)
    _expect(_is_count(offset), "offset", offset)
    _expect(isinstance(shape, tuple) and len(shape) <= 8 and all(map(_is_count, shape)), "shape", shape)
    _expect(isinstance(strides, tuple) and all(map(_is_count, strides)), "strides", strides)
    _expect(len(strides) == len(shape), "strides", strides)
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, requires_grad: Any, hooks: Any) -> Tensor:
    """Stands in for torch._utils._rebuild_parameter."""
    _expect(isinstance(tensor, Tensor), "tensor", tensor)
    return tensor


def _ordered_dict(items: Any = ()) -> _OrderedDict:
    """Stands in for collections.OrderedDict."""
    _expect(isinstance(items, list | tuple), "items", items)
    return _OrderedDict(items)


def _size(shape: Any) -> tuple[int, ...]:
    """Stands in for torch.Size."""
    _expect(isinstance(shape, list | tuple) and all(map(_is_count, shape)), "shape", shape)
    return tuple(shape)


def _scalar_type(code: Any, align: Any, copy: Any) -> _ScalarType:
    """Stands in for numpy.dtype."""
    _expect(code in _SCALAR_DTYPES, "type", code)
    return _ScalarType(code)


def _scalar(scalar_type: Any, value: Any) -> float | int | bool:
    """Stands in for numpy's scalar(): YOLOX's trainer saves `best_ap` that way."""
    _expect(isinstance(scalar_type, _ScalarType), "type", scalar_type)
    dtype = np.dtype(scalar_type.code).newbyteorder("<")
    _expect(isinstance(value, bytes) and len(value) == dtype.itemsize, "value", value)
    return np.frombuffer(value, dtype)[0].item()


def _latin1_bytes(text: Any, encoding: Any) -> bytes:
    """Stands in for _codecs.encode, which writes bytes in protocol 2."""
    _expect(isinstance(text, str), "text", text)
    _expect(encoding == "latin1", "encoding", encoding)
    return text.encode("latin1")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _shown(value: object) -> str:
    """Returns a short form, also of a list that holds another one many times; Python refuses to show huge numbers."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return f"a huge {type(value).__name__}"


def _expect(condition: bool, what: str, found: object) -> None:
    if not condition:
        raise ValueError(f"{what} {_shown(found)}")


_ALLOWED: dict[str, _Sealed] = {
    stand_in.name: stand_in
    for stand_in in (
        _StandIn("collections.OrderedDict", _ordered_dict),
        _StandIn("torch._utils._rebuild_tensor_v2", _tensor),
        _StandIn("torch._utils._rebuild_parameter", _parameter),
        _StandIn("torch.Size", _size),
        _StandIn("numpy.dtype", _scalar_type),
        _StandIn("numpy.core.multiarray.scalar", _scalar),
        _StandIn("numpy._core.multiarray.scalar", _scalar),  # the name in numpy 2
        _StandIn("_codecs.encode", _latin1_bytes),
    )
} | {f"torch.{name}": _StorageType(name) for name in STORAGE_DTYPES}


class Unpickler(pickle.Unpickler):
    """Builds descriptions of tensors from a pickle; only the names in `_ALLOWED` are known."""

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"[:200]
        if wanted not in _ALLOWED:
            raise ValueError(f"it asks to run {wanted}: not a weights file")
        return _ALLOWED[wanted]

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", _StorageType() as storage_type, str(key), str(), count) if _is_count(count):
                return Storage(storage_type, key, count)
        raise ValueError(f"it refers to {_shown(pid)}, which is not a tensor's storage")
