"""Refuses pickles of a .pth file that ask for anything a checkpoint does not need, and runs nothing of them."""

import builtins
import os
import struct
import subprocess
import zipfile

import pytest

from tests.weights.pickle_writer import (
    ORDERED_DICT,
    REBUILD,
    Build,
    Call,
    Global,
    New,
    Persistent,
    StackGlobal,
    save,
    tensor,
)
from yolox_jax.errors import UserError
from yolox_jax.weights.torch_file import load_pth


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture
def nothing_runs(monkeypatch, tmp_path):
    """A shell command that must not run: traps eval, exec and the like, and checks that its file does not appear."""
    proof = tmp_path / "it-ran"
    trapped = []
    for module, name in [(builtins, "eval"), (builtins, "exec"), (os, "system"), (subprocess, "Popen")]:
        monkeypatch.setattr(module, name, lambda *arguments, **_: trapped.append(arguments))
    yield f"touch {proof}"
    assert not trapped
    assert not proof.exists()


@pytest.mark.parametrize("module", ["os", "posix", "nt"])
@pytest.mark.parametrize("kind", [Global, StackGlobal])
def test_a_pickle_that_runs_a_command_is_refused(path, nothing_runs, module, kind):
    save(path, Call(kind(module, "system"), (nothing_runs,)))
    with pytest.raises(UserError, match=rf"weights.pth .*asks to run {module}\.system: not a weights file"):
        load_pth(path)


@pytest.mark.parametrize(
    "name",
    [
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "namedtuple"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.serialization", "os"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("_codecs", "lookup"),
        ("codecs", "encode"),
    ],
)
@pytest.mark.parametrize("kind", [Global, StackGlobal])
def test_names_that_a_checkpoint_does_not_need_are_refused(path, nothing_runs, name, kind):
    save(path, {"model": Call(kind(*name), (f"__import__('os').system({nothing_runs!r})",))})
    with pytest.raises(UserError, match=rf"asks to run {'.'.join(name)}"):
        load_pth(path)


def test_a_call_among_real_weights_is_refused_too(path, nothing_runs):
    model = {"w": tensor("Float", "0", 1, (1,), (1,)), "x": Call(Global("os", "system"), (nothing_runs,))}
    save(path, {"model": model}, {"0": bytes(4)})
    with pytest.raises(UserError, match=r"os\.system"):
        load_pth(path)


STORAGE = Persistent(("storage", Global("torch", "FloatStorage"), "0", "cpu", 1))
F8 = Call(Global("numpy", "dtype"), ("f8", False, True))
SCALAR = Global("numpy.core.multiarray", "scalar")
ENCODE = Global("_codecs", "encode")


@pytest.mark.parametrize(
    "value",
    [
        Call(REBUILD, ()),
        Call(REBUILD, ("storage", 0, (1,), (1,), False, None)),
        Call(REBUILD, (STORAGE, -1, (1,), (1,), False, None)),
        Call(REBUILD, (STORAGE, 0, (-1,), (1,), False, None)),
        Call(REBUILD, (STORAGE, 0, (1,), (1, 1), False, None)),
        Call(REBUILD, (STORAGE, 0, ("1",), (1,), False, None)),
        Call(REBUILD, (STORAGE, 0, (1,), (-1,), False, None)),
        Call(Global("torch._utils", "_rebuild_parameter"), ("tensor", True, None)),
        Call(Global("torch", "Size"), ("12",)),
        Call(ORDERED_DICT, (7,)),
        Call(ORDERED_DICT, ([7],)),
        Call(Global("numpy", "dtype"), ("O8", False, True)),
        Call(Global("numpy", "dtype"), ([("a", "f8")], False, True)),
        Build(F8, (3, ">", None, None, None, -1, -1, 0)),
        Build(F8, (3, "<", ("f8", (9,)), None, None, -1, -1, 0)),
        Build(F8, {"code": "O8"}),
        Call(SCALAR, (F8, b"123")),
        Call(SCALAR, ("f8", bytes(8))),
        Call(ENCODE, ("text", "rot13")),
        Call(ENCODE, (7, "latin1")),
        Call(Global("torch", "FloatStorage"), ()),
        Call("a text", ()),
        New(ORDERED_DICT, ()),
        New(Global("torch", "FloatStorage"), ()),
        Persistent("0"),
        Persistent(("storage", "FloatStorage", "0", "cpu", 1)),
        Persistent(("storage", Global("torch", "FloatStorage"), "0", "cpu", -1)),
        Persistent(("module", Global("torch", "FloatStorage"), "0", "cpu", 1)),
        Build(REBUILD, {"build": ENCODE}),
        Build(REBUILD, (None, {"build": ENCODE})),
        Build(Global("torch", "FloatStorage"), {"name": "LongStorage"}),
        Build(STORAGE, {"count": 9}),
        Build(tensor("Float", "0", 1, (1,), (1,)), {"shape": (9,)}),
        Build([], {"a": 1}),
    ],
    ids=repr,
)
def test_allowed_names_take_only_what_a_checkpoint_gives_them(path, value):
    with pytest.raises(UserError, match=r"weights\.pth is refused and none of it was run"):
        load_pth(save(path, {"model": {"w": value}}, {"0": bytes(4)}))
    good = tensor("Float", "0", 1, (1,), (1,))  # and nothing has changed for the next file
    assert load_pth(save(path, {"model": {"w": good}}, {"0": struct.pack("<f", 5)}))["w"] == 5


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"\x80\x02}", b"no pickle", b"\x80\x02t."])
def test_a_damaged_pickle_is_refused(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    with pytest.raises(UserError, match=r"weights\.pth is refused"):
        load_pth(path)
