"""Damaged and hostile inputs end right or with one message: 200 of them, others each day."""

import collections
import datetime
import json
import os
import subprocess
import sys

import pytest

from tests.material import ROOT


def _run(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", *arguments]
    found = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    print(found.stdout, found.stderr, sep="\n")  # shown if the test fails; with the seed it can be repeated
    return found


@pytest.mark.slow
def test_every_kind_of_fault_is_noticed():
    found = _run("tests.fuzz_faults")
    kinds = collections.defaultdict(list)
    for kind, outcome in json.loads(found.stdout.splitlines()[-1]).items():
        kinds[outcome].append(kind)
    assert kinds == {
        "right": ["right"],
        "one message": ["message"],
        "unclear message": ["a page", "no place", "surrogate"],
        "traceback": ["crash", "error"],
        "hang": ["forever", "pipe"],
        "memory": ["demand", "memory"],
        "silent wrong": ["wrong"],
        "execution": ["elsewhere", "import", "program"],
    }


@pytest.mark.slow
def test_todays_inputs_are_read_right_or_refused_with_one_message():
    seed = datetime.date.today().isoformat()
    assert _run("benchmarks.fuzz", "--inputs=200", f"--seed={seed}").returncode == 0
