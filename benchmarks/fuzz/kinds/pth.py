"""PyTorch's .pth files: damaged bytes, and files whose checksums are right and whose pickle is not."""

import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz import file_faults
from benchmarks.fuzz.change import Change, Judged, Kind
from tests.weights import pickle_writer
from tests.weights.pickle_writer import Build, Call, Global, New, StackGlobal
from yolox_jax.weights import load, official

_FILE, _COUNT = "weights.pth", 24
_NAMES = ("backbone.backbone.stem.conv.conv.weight", "head.cls_preds.0.bias")
_CODE = (("os", "system"), ("builtins", "eval"), ("trapped", "Feature"), ("subprocess", "Popen"), ("torch", "load"))
_REFUSED = object()  # the result that a change expects: a message


def make(folder: Path) -> None:
    _save(folder / _FILE, {name: ("Float", str(key), _COUNT, (2, 3, 4), (12, 4, 1), 0) for key, name in _keys()})


def _keys() -> list[tuple[int, str]]:
    return list(enumerate(_NAMES))


def _numbers(key: int) -> np.ndarray:
    return np.arange(_COUNT, dtype=np.float32) + 100 * key


def _save(file: Path, tensors: dict[Any, Any], extra: object = None, storages: dict[str, bytes] | None = None) -> None:
    named = {name: pickle_writer.tensor(*each) if isinstance(each, tuple) else each for name, each in tensors.items()}
    whole: dict[str, object] = {"model": named}
    if extra is not None:
        whole["extra"] = extra
    data = {str(key): _numbers(key).tobytes() for key, _ in _keys()} if storages is None else storages
    pickle_writer.save(file, whole, data)


def change(folder: Path, rng: random.Random) -> Change:
    file = folder / _FILE
    chosen = rng.random()
    if chosen < 0.35:
        return file_faults.change_bytes(file, rng)
    if chosen < 0.4:
        return file_faults.replace_file(file, rng)
    if chosen < 0.55:
        return _change_members(file, rng)
    if chosen < 0.75:
        return _change_tensor(file, rng)
    return _change_objects(file, rng)


def _change_members(file: Path, rng: random.Random) -> Change:
    kind = rng.choice(("missing", "doubled", "compressed", "outside", "huge", "order", "second root"))
    with zipfile.ZipFile(file) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    chosen = rng.randrange(len(members))
    with zipfile.ZipFile(file, "w") as archive:
        for number, (name, data) in enumerate(members):
            is_chosen = number == chosen
            if is_chosen and kind == "missing":
                continue
            if is_chosen and kind == "huge":
                data = bytes(1 << 24)
            method = zipfile.ZIP_DEFLATED if is_chosen and kind in ("compressed", "huge") else zipfile.ZIP_STORED
            archive.writestr(f"../{name}" if is_chosen and kind == "outside" else name, data, method)
        if kind == "doubled":
            archive.writestr(*members[chosen])
        if kind == "second root":
            archive.writestr("other/data.pkl", members[0][1])
        if kind == "order":
            archive.writestr("archive/byteorder2", b"big")
    may_be_read = kind in ("order", "doubled") or (kind == "missing" and members[chosen][0].endswith("byteorder"))
    may_be_read |= kind == "outside" and members[chosen][0].endswith("byteorder")
    return Change(f"member {members[chosen][0]}: {kind}", expected=None if may_be_read else _REFUSED)


def _change_tensor(file: Path, rng: random.Random) -> Change:
    """Changes one field of a tensor; what it then holds is computed here by indices alone."""
    tensors: dict[Any, Any] = {name: ("Float", str(key), _COUNT, (2, 3, 4), (12, 4, 1), 0) for key, name in _keys()}
    name = rng.choice(_NAMES)
    fields = list(tensors[name])
    values = (
        ("Float", "Double", "Half", "Long", "Byte", "Quantized", "os"),
        ("0", "1", "2", "../data.pkl", ""),
        (0, 1, _COUNT - 1, _COUNT + 1, -1, 2**62),
        ((), (24,), (0, 3), (2, 3, 5), (-1, 3), (2**40, 2**40), (1,) * 9, (4, 3, 2), (2, 3, 4)),
        ((1, 2, 6), (0, 0, 0), (-1, 0, 0), (2**40, 1, 1), (1,), ()),
        (1, -1, 12, 2**62, _COUNT),
    )
    field = rng.randrange(len(fields))
    fields[field] = rng.choice(values[field])
    tensors[name] = tuple(fields)
    _save(file, tensors)
    expected = {each: _array(*tensors[each]) for each in _NAMES}
    is_refused = any(array is None for array in expected.values())
    return Change(f"{name}: field {field} is {fields[field]}", expected=_REFUSED if is_refused else expected)


def _array(kind: str, key: str, count: int, shape: Any, strides: Any, offset: int) -> np.ndarray | None:
    """Returns the numbers of a tensor; None if they are not all there."""
    if kind != "Float" or key not in ("0", "1") or count != _COUNT or len(shape) != len(strides) or len(shape) > 8:
        return None
    if any(number < 0 for number in (*shape, *strides, offset)) or np.prod(shape, dtype=float) > _COUNT:
        return None
    indices = np.full(shape, offset, np.float64)
    for axis, stride in enumerate(strides):
        indices = indices + np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))]) * stride
    if offset >= 2**31 or (indices.size and indices.max() >= _COUNT):
        return None
    return _numbers(int(key))[indices.astype(int)]


def _change_objects(file: Path, rng: random.Random) -> Change:
    """Adds an object that names code, is nested or repeated, or has numbers that are not finite."""
    good: dict[Any, Any] = {name: ("Float", str(key), _COUNT, (2, 3, 4), (12, 4, 1), 0) for key, name in _keys()}
    module, name = rng.choice(_CODE)
    function = rng.choice((Global(module, name), StackGlobal(module, name)))
    kind = rng.choice(("call", "new", "build", "depth", "doubling", "memo", "nan", "name", "not a tensor", "extra"))
    if kind == "memo":
        pickled = b"\x80\x02]r\xff\xff\xff\x7f."
        pickled = rng.choice((pickled, b"\x80\x04]" + b"\x94" * 10 + b"j\xff\xff\xff\x7f.", b"\x80\x02(((((tttttt."))
        pickle_writer.save(file, None, {})
        _replace_pickle(file, pickled)
    elif kind == "doubling":
        pickled = b"\x80\x02]q\x00" + b"".join(b"(h%ch%cl0]q%c(h%ch%ce" % (i, i, i + 1, i, i) for i in range(60)) + b"."
        tuples = b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"."
        pickle_writer.save(file, None, {})
        _replace_pickle(file, rng.choice((pickled, tuples, b"\x80\x02}" + tuples[2:-1] + b"K\x01s.")))
    elif kind == "depth":
        _replace_pickle_of(file, b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    elif kind == "nan":
        numbers = _numbers(0)
        numbers[rng.randrange(_COUNT)] = rng.choice((np.nan, np.inf, -np.inf))
        _save(file, good, storages={"0": numbers.tobytes(), "1": _numbers(1).tobytes()})
    elif kind == "name":
        value: Any = rng.choice((1, None, ("a",), "é", "a\0b", "x" * 70_000, ""))
        _save(file, {**good, value: good[_NAMES[0]]})
        return Change(f"a tensor is called {str(value)[:20]!r}")
    elif kind == "not a tensor":
        _save(file, {**good, "another": rng.choice((1, "text", [1], {}, None))})
    elif kind == "extra":
        _save(file, good, extra=rng.choice((1, "text", [1, [2, [3]]], {"a": ()}, None)))
        return Change("another entry beside the model", is_harmless=True)
    else:
        made = {
            "call": Call(function, ("touch ran",)),
            "new": New(function, ("x",)),
            "build": Build(function, {"a": 1}),
        }
        _save(file, good, extra=made[kind])
    return Change(f"{kind} of {module}.{name}", expected=_REFUSED)


def _replace_pickle_of(file: Path, pickled: bytes) -> None:
    pickle_writer.save(file, None, {})
    _replace_pickle(file, pickled)


def _replace_pickle(file: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)


def read(folder: Path) -> dict[str, np.ndarray]:
    """Reads the tensors as `Detector` and `--config.init_from` do before they look for a network that they fit."""
    state_dict = load.read_official(str(folder / _FILE))
    official.num_classes_of(state_dict)
    return state_dict


def judge(folder: Path, change: Change, result: dict[str, np.ndarray]) -> Judged:
    if change.expected is _REFUSED:
        return Judged(f"it is read: {sorted(result)}")
    expected = change.expected or {name: _numbers(key).reshape(2, 3, 4) for key, name in _keys()}
    for name, array in expected.items():
        if name not in result or not np.array_equal(result[name], array):
            return Judged(f"{name} is {result.get(name)}, expected {array}")
    return Judged()


KIND = Kind("pth", make, change, read, judge)
