"""Writes the tensors of a model as a PyTorch .pth file, without PyTorch.

The format is that of torch.save since PyTorch 1.6: an uncompressed zip archive of a pickle that describes the tensors
and one member of plain numbers for each. The pickle has only what torch.load(weights_only=True) allows.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from yolox_jax import storage

_ROOT = "archive"  # the folder inside; torch accepts any name
_ALIGNMENT = 64  # bytes: torch aligns each storage so that it can be mapped into memory
_PADDING_FIELD = 0x4246  # "FB", torch's id for the zip extra field that pads to the alignment
_LOCAL_HEADER = 30  # bytes before the name in the zip format
_STORAGES = {np.dtype(np.float32): "FloatStorage", np.dtype(np.int64): "LongStorage"}


def save_pth(path: str | Path, state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes {"model": state_dict}, as YOLOX does; the tensors must be float32 or int64.

    Raises:
      ValueError: a tensor has another type.
      UserError: the file cannot be written.
    """
    described, file = _model(state_dict), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "data.pkl", described)
        _add(archive, "byteorder", b"little")
        for key, array in enumerate(state_dict.values()):
            _add(archive, f"data/{key}", array.astype(array.dtype.newbyteorder("<"), order="C").tobytes())
        _add(archive, "version", b"3\n")
    storage.write_bytes(Path(path), file.getvalue())


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Adds a member whose data starts at a multiple of the alignment."""
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")  # dated 1980, so that the same tensors give the same file
    assert archive.fp is not None
    start = archive.fp.tell() + _LOCAL_HEADER + len(info.filename) + 4
    fill = -start % _ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_FIELD, fill) + bytes(fill)
    archive.writestr(info, data)


def _model(state_dict: Mapping[str, np.ndarray]) -> bytes:
    """Returns the pickle, in protocol 2, of {"model": an OrderedDict of tensors}."""
    model = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.MARK
    for key, (name, array) in enumerate(state_dict.items()):
        if array.dtype not in _STORAGES:
            raise ValueError(f"tensor {name} is {array.dtype}: expected {' or '.join(map(str, _STORAGES))}")
        model += _text(name) + _tensor(str(key), array)
    model += pickle.SETITEMS
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + _text("model") + model + pickle.SETITEM + pickle.STOP


def _tensor(key: str, array: np.ndarray) -> bytes:
    """Encodes the call torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)."""
    storage = (_text("storage"), _global("torch", _STORAGES[array.dtype]), _text(key), _text("cpu"), _int(array.size))
    strides = [int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)]  # of C order, in numbers
    no_hooks = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = (
        _tuple(*storage) + pickle.BINPERSID,
        _int(0),
        _tuple(*map(_int, array.shape)),
        _tuple(*map(_int, strides)),
        pickle.NEWFALSE,
        no_hooks,
    )
    return _global("torch._utils", "_rebuild_tensor_v2") + _tuple(*arguments) + pickle.REDUCE


def _tuple(*parts: bytes) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _int(number: int) -> bytes:
    return pickle.BININT + struct.pack("<i", number)
