"""Ctrl-C in the first seconds of a program ends it with one word and exit code 130, SIGTERM train.py with 75."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.material import ROOT
from yolox_jax import interrupts

_LIBRARIES = ("absl", "cv2", "jax", "numpy")
_SEND = "import os, signal; os.kill(os.getpid(), signal.SIG{}); raise ImportError('renamed')"


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    """Programs inherit an ignored signal, as under nohup."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _end_at_first_library(folder, program, signal_name):
    """Runs a program that gets a signal when it imports its first library. Returns exit code, output and errors."""
    for name in _LIBRARIES:
        (folder / f"{name}.py").write_text(_SEND.format(signal_name))
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    ended = subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    "program",
    [
        [str(ROOT / "train.py")],
        [str(ROOT / "eval.py")],
        ["-m", "yolox_jax.tools.doctor"],
        ["-m", "yolox_jax.tools.export"],
        ["-c", "from yolox_jax.cli import commands; commands.train()"],
        ["-c", "from yolox_jax.cli import commands; commands.predict()"],
    ],
)
def test_ctrl_c_while_the_first_library_is_imported_is_one_word_and_130(tmp_path, program):
    assert _end_at_first_library(tmp_path, program, "INT") == (130, "", "\ninterrupted\n")


@pytest.mark.parametrize(
    "program", [[str(ROOT / "train.py")], ["-c", "from yolox_jax.cli import commands; commands.train()"]]
)
def test_sigterm_while_train_imports_its_first_library_is_one_line_and_75(tmp_path, program):
    message = "\nSIGTERM: nothing is lost; the same command resumes\n"
    assert _end_at_first_library(tmp_path, program, "TERM") == (75, message, "")


def test_sigterm_ends_other_programs_and_is_ignored_where_it_was(tmp_path):
    assert _end_at_first_library(tmp_path, [str(ROOT / "eval.py")], "TERM") == (-signal.SIGTERM, "", "")
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        interrupts.end_at_sigterm()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ignored_ctrl_c_stays_ignored_and_importing_the_package_changes_nothing():
    program = """
import signal
import yolox_jax.tools
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
signal.signal(signal.SIGINT, signal.SIG_IGN)
yolox_jax.tools.interrupts.end_at_ctrl_c()
assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_inside_the_block_ctrl_c_is_an_exception_as_usual():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupts.end_at_ctrl_c()
        ends = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupts.as_exceptions():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is ends is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


class _Interrupted:
    """Ctrl-C or SIGTERM comes while an object is finalized, where Python drops the exception."""

    def __init__(self, number):
        self._number = number

    def __del__(self):
        signal.raise_signal(self._number)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, interrupts.Terminated)]
)
def test_a_signal_whose_exception_python_drops_is_raised_again(number, error):
    handlers, hook = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)], sys.unraisablehook
    try:
        interrupts.end_at_ctrl_c()
        with pytest.raises(error) as raised, interrupts.as_exceptions(), interrupts.sigterm_as_exception():
            _Interrupted(number)  # finalized at once
            time.sleep(60)  # until the signal comes again
        assert raised.type is error
        assert sys.unraisablehook is hook and signal.getsignal(signal.SIGTERM) is handlers[1]
    finally:
        signal.signal(signal.SIGINT, handlers[0])
