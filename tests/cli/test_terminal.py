"""A user's mistake is one message, any other error keeps its traceback, and a wrong path is found before the work."""

import io
import json
import logging
import os
import subprocess
import sys

import jax
import pytest
from absl import flags
from absl import logging as absl_logging

from tests import programs
from tests.material import ROOT
from yolox_jax.cli import terminal
from yolox_jax.cli.terminal import user_errors
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.interrupts import Terminated
from yolox_jax.training import hosts
from yolox_jax.training.interruption import Stopped


@pytest.fixture(autouse=True)
def parsed_flags(monkeypatch):
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(hosts, "exit_at_once", sys.exit)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("config.epochs is 0", "give 1 or more"), "error: config.epochs is 0: give 1 or more"),
        (NotFoundError("there is no file a.json", "give one"), "error: there is no file a.json: give one"),
        (Stopped("SIGTERM: saved"), 75),
        (KeyboardInterrupt(), 130),
        (Terminated(), 75),
    ],
)
def test_an_error_or_signal_that_the_user_causes_ends_the_program_without_a_traceback(error, code):
    with pytest.raises(SystemExit) as left, user_errors():
        raise error
    assert left.value.code == code


def test_an_error_that_ctrl_c_led_to_is_ctrl_c(capsys):
    with pytest.raises(SystemExit) as left, user_errors():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise SystemError("initialization of a module failed") from interrupt
    assert (left.value.code, capsys.readouterr().err) == (130, "\ninterrupted\n")


def test_a_full_device_is_one_message_with_advice():
    with pytest.raises(SystemExit) as left, user_errors():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory while allocating\nmore lines")
    assert left.value.code.startswith("error: the memory of a device is full (RESOURCE_EXHAUSTED: out of memory")
    assert "lower config.batch_size" in left.value.code and "more lines" not in left.value.code


def test_too_many_open_files_is_one_message_whatever_noticed_it():
    with pytest.raises(SystemExit) as left, user_errors():
        try:
            raise OSError(24, "Too many open files")
        except OSError as error:
            raise UserError("a checkpoint could not be written", "free some space") from error
    assert left.value.code.startswith("error: no more files can be opened") and "ulimit -n" in left.value.code


@pytest.mark.parametrize("kind", [ValueError, OSError, RuntimeError, KeyError, ImportError, jax.errors.JaxRuntimeError])
def test_any_other_error_passes(kind):
    with pytest.raises(kind, match="deep"), user_errors():
        raise kind("deep")


@pytest.mark.parametrize("error", ['ValueError("a bug")', 'OSError("a bug")'])
def test_an_error_in_the_depth_of_the_code_shows_its_traceback(tmp_path, error):
    program = f"""
import sys
from yolox_jax.weights import checkpoint

def broken(folder):
    raise {error}

checkpoint.read_aps = broken
sys.argv = ["checkpoints", "run"]
import runpy
runpy.run_module("yolox_jax.tools.checkpoints", run_name="__main__", alter_sys=True)
"""
    command = [sys.executable, "-c", program]
    environment = programs.environment()
    started = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert started.returncode == 1
    assert "Traceback" in started.stderr and "in list_checkpoints" in started.stderr and "in broken" in started.stderr
    assert started.stderr.rstrip().endswith("Error: a bug")


_CONFIG = [f"--config={ROOT / 'configs' / 'yolox_nano.py'}", "--config.data.root=none"]


@pytest.mark.parametrize(
    ("program", "arguments", "outputs"),
    [
        ("eval.py", [*_CONFIG, "--weights=none"], ["output", "detections"]),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("-m yolox_jax.tools.doctor", _CONFIG, ["json", "sheet"]),
                ("-m yolox_jax.tools.plan", [*_CONFIG, "--topology=none"], ["json"]),
                ("-m yolox_jax.tools.export", ["--weights=none/none", "--format=onnx"], ["output"]),
                ("-m yolox_jax.tools.predict", ["--weights=none/none", "a.jpg"], ["output"]),
            )
        ),
    ],
)
def test_the_folders_of_files_to_write_are_made_before_the_work(tmp_path, program, arguments, outputs):
    files = [f"--{name}=new/{name}/file.jpg" for name in outputs]
    programs.run(program, [*arguments, *files], tmp_path, 1)
    assert sorted(folder.name for folder in (tmp_path / "new").iterdir()) == sorted(outputs)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_name_cannot_act_on_the_terminal(monkeypatch, name):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    handler = logging.StreamHandler(stream)  # absl's holds the stream since it was imported
    monkeypatch.setattr(sys, name, stream)
    terminal.parse_flags(["program"])
    for text in ("\x1b]0;title\x07\ttab", "\x9b31m\u202egnp.exe", "half\roverwritten", "ä", "\rprogress"):
        print(text, file=getattr(sys, name))
    handler.handle(logging.makeLogRecord({"msg": "\x1b[2J"}))
    stream.flush()
    assert written.getvalue().decode().split("\n") == [
        *("\\x1b]0;title\\x07\ttab", "\\x9b31m\\u202egnp.exe", "half\\roverwritten", "\\xe4", "\rprogress"),
        *("\\x1b[2J", ""),
    ]


def test_a_traceback_has_no_escapes(monkeypatch):
    written = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding="utf-8"))
    monkeypatch.setenv("PYTHON_COLORS", "1")  # as on a terminal
    terminal.parse_flags(["program"])
    sys.__excepthook__(ValueError, ValueError("a bug"), None)
    sys.stderr.flush()
    assert written.getvalue() == b"ValueError: a bug\n"


@pytest.mark.slow  # imports all of eval.py
def test_an_error_in_the_plots_loses_neither_numbers_nor_detections(tmp_path):
    program = f"""
import eval as program
from yolox_jax.evaluation.ap_result import ApResult
from yolox_jax.evaluation.evaluate import EvalResult

def broken(*args):
    raise RuntimeError("no font")

program.plot, program.identify = broken, lambda weights: {{}}
program.find_weights = lambda spec: program.FoundWeights(spec, None)
result = EvalResult(ApResult({{"AP": 0.5}}, ()), [{{"score": 1}}], 1, None)
program.as_trained, program.evaluate_weights = lambda *_: None, lambda *_: (result, None)
outputs = ["--output=results.json", "--detections=found.json", "--plots=plots"]
program.flags.FLAGS(["eval", "--config={programs.ROOT}/configs/quickstart.py", "--weights=x", *outputs])
program.main()
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(
        command, cwd=tmp_path, env=programs.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.stderr.endswith("RuntimeError: no font\n")
    assert json.loads((tmp_path / "results.json").read_text())["AP"] == 0.5
    assert json.loads((tmp_path / "found.json").read_text()) == [{"score": 1}]


def test_what_orbax_leaves_out_is_shown_and_its_other_warnings_are_not(caplog, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # to be restored
    logger = absl_logging.get_absl_logger()
    filters, level = list(logger.filters), absl_logging.get_verbosity()
    try:
        terminal.quiet_libraries()
        for path in ("orbax/checkpoint/x.py", "grain/x.py"):
            for text in ("warning('Skipping merge of %s', 5)", "warning('slow')", "error('failed')", "info('skipped')"):
                exec(compile(f"logging.{text}", path, "exec"), {"logging": absl_logging})  # noqa: S102
    finally:
        logger.filters[:] = filters
        absl_logging.set_verbosity(level)
    assert caplog.messages == ["Skipping merge of 5"]


_PRINTS = """
import sys
from yolox_jax.cli import terminal

def main():
    with terminal.user_errors():
        print("x" * int(sys.argv[1]))

program = sys.argv[0]
terminal.app.run(lambda argv: main(), argv=[program], flags_parser=terminal.parse_flags)
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_characters", [1, 10**6])  # written at the program's end, and at once
@pytest.mark.parametrize("where", ["/dev/full", "closed pipe"])
def test_output_that_cannot_be_written_is_one_message(where, num_characters):
    if where == "/dev/full":
        output = os.open(where, os.O_WRONLY)
    else:
        closed, output = os.pipe()
        os.close(closed)
    command = [sys.executable, "-c", _PRINTS, str(num_characters)]
    ended = subprocess.run(
        command, env=programs.environment(), stdout=output, stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )
    os.close(output)
    assert ended.returncode == 1
    (message,) = ended.stderr.splitlines()
    assert message.startswith("error: standard output cannot be written (")
