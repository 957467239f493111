"""Writes pickles and .pth files instruction by instruction, invalid ones too, without PyTorch."""

import struct
import zipfile
from typing import NamedTuple


class Global(NamedTuple):
    module: str
    name: str


class StackGlobal(NamedTuple):
    module: str
    name: str


class Call(NamedTuple):
    function: object
    arguments: tuple


class New(NamedTuple):
    cls: object
    arguments: tuple


class Build(NamedTuple):
    instance: object
    state: object


class Persistent(NamedTuple):
    pid: object


def write(value):
    """The pickle instructions that put `value` on the stack."""
    match value:
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case StackGlobal(module, name):
            return write(module) + write(name) + b"\x93"
        case Call(function, arguments):
            return write(function) + write(arguments) + b"R"
        case New(cls, arguments):
            return write(cls) + write(arguments) + b"\x81"
        case Build(instance, state):
            return write(instance) + write(state) + b"b"
        case Persistent(pid):
            return write(pid) + b"Q"
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            return b"\x8a\x08" + struct.pack("<q", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(write, value)) + b"t"
        case list():
            return b"](" + b"".join(map(write, value)) + b"e"
        case dict():
            return b"}(" + b"".join(write(key) + write(item) for key, item in value.items()) + b"u"
    raise TypeError(value)


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
ORDERED_DICT = Global("collections", "OrderedDict")


def tensor(kind, key, count, shape, strides, offset=0):
    storage = Persistent(("storage", Global("torch", f"{kind}Storage"), key, "cpu", count))
    return Call(REBUILD, (storage, offset, shape, strides, False, Call(ORDERED_DICT, ())))


def save(path, contents, storages=None, byteorder="little"):
    """What torch.save would write for `contents`, whose tensors refer to `storages`: {key: bytes}."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + write(contents) + b".")
        if byteorder:
            archive.writestr("archive/byteorder", byteorder)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path
