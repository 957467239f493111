"""Readers with one fault each, which benchmarks.fuzz must notice: python -m tests.fuzz_faults prints the outcomes."""

import ctypes
import importlib
import json
import os
import subprocess

from benchmarks.fuzz import __main__ as fuzz
from benchmarks.fuzz import isolation
from benchmarks.fuzz.change import Change, Judged, Kind
from yolox_jax.errors import UserError


def refuse(what):
    raise UserError(what, "correct it")


def hold_memory():
    return bytearray(2 << 30)  # every page of it is written; a parent may have given back a part of its peak


def wait_for_a_pipe(folder):
    os.mkfifo(folder / "pipe")
    (folder / "pipe").read_bytes()


def compute_forever():
    while True:
        pass


def write_elsewhere(folder):
    (folder.parent.parent / "written").touch()


FAULTS = {
    "right": lambda folder: None,
    "message": lambda folder: refuse(f"{folder}/a is wrong"),
    "no place": lambda folder: refuse("something is wrong"),
    "a page": lambda folder: refuse(f"{folder} has " + "a line\n" * 1000),
    "surrogate": lambda folder: refuse(f"{folder}/\ud800 is wrong"),
    "error": lambda folder: 1 / 0,
    "crash": lambda folder: ctypes.string_at(0),
    "forever": lambda folder: compute_forever(),
    "pipe": wait_for_a_pipe,
    "memory": lambda folder: hold_memory(),
    "demand": lambda folder: bytearray(1 << 40),
    "wrong": lambda folder: "wrong",
    "import": lambda folder: importlib.import_module("trapped"),
    "program": lambda folder: subprocess.run(["true"], check=True),
    "elsewhere": write_elsewhere,
}


def kind(name):
    return Kind(name, lambda folder: None, lambda folder, rng: Change("a change"), FAULTS[name], judge)


def judge(folder, change, result):
    return Judged(result if result == "wrong" else "")


if __name__ == "__main__":
    isolation._CPU_SECONDS, isolation._SECONDS = 5, 15
    kinds = [kind(name) for name in FAULTS]
    outcomes = fuzz.run(kinds, [(each, 1) for each in kinds], "1", jobs=2)
    print(json.dumps(dict(sorted((each.kind, each.outcome) for each in outcomes))))
