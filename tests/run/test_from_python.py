"""yolox_jax.train and yolox_jax.evaluate, several times in one process."""

import gc
import json
import logging
import re
import signal
import sys
import threading
import traceback
import weakref

import jax
import pytest
from absl import logging as absl_logging

import yolox_jax
from tests import small
from tests.material import ROOT
from yolox_jax.cli.load_config import load_config
from yolox_jax.errors import UserError
from yolox_jax.interrupts import SavedInterrupt
from yolox_jax.mesh import make_mesh
from yolox_jax.run import evaluate, from_python, prepare
from yolox_jax.training.interruption import Stopped, stop_request

# Sizes and optimizer are those of tests/programs.py, so that both share one compiled program.
_SMALL = {
    "data.kind": "shapes",
    "data.shapes.num_train": 12,
    "data.shapes.num_val": 8,
    "data.max_boxes": 8,
    "model": "pico",
    "init_from": "",
    "input_size": (64, 64),
    "multiscale.enabled": False,
    "hsv.enabled": False,
    "batch_size": 4,
    "optimizer": "adamw",
    "lr_per_image": 1e-2 / 8,
    "weight_decay": 0.05,
    "ema_decay": 0.998,
    "epochs": 2,
    "no_aug_epochs": 1,
    "eval.every_epochs": 1,
    "eval.batch_size": 8,
    "eval.detect.conf": 0.0001,
    "log_every_steps": 1,
}


def _settings_of_the_process():
    absl_logger = absl_logging.get_absl_logger()
    loggers = [logging.getLogger(), logging.getLogger("yolox_jax"), absl_logger]
    return (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        [(logger.level, list(logger.handlers), list(logger.filters)) for logger in loggers],
        (absl_logging.get_verbosity(), sys.unraisablehook, list(sys.path)),
        {name for name in sys.modules if name.startswith("configs")},
    )


class _State:
    """Stands for the arrays of a run."""


@pytest.fixture
def fails_by(monkeypatch):
    """Makes a run end by this error, without training. Returns references to the states of such runs."""
    states = []

    def fails_by(error):
        def train(*arguments):
            state = _State()
            states.append(weakref.ref(state))
            raise error

        monkeypatch.setattr(from_python.whole_run, "train", train)
        return states

    return fails_by


def test_a_run_that_was_stopped_raises_a_keyboard_interrupt_that_holds_nothing_of_it(fails_by, tmp_path):
    states = fails_by(Stopped("SIGINT: saved at step 3"))
    before = _settings_of_the_process()
    with pytest.raises(KeyboardInterrupt, match="SIGINT: saved at step 3") as caught:
        yolox_jax.train("finetune", tmp_path / "run", overrides=_SMALL)
    assert [state() for state in states] == [None]  # a notebook keeps the error
    assert caught.value._render_traceback_() == ["SIGINT: saved at step 3"]
    assert _settings_of_the_process() == before


def test_an_error_that_the_caller_is_handling_keeps_its_variables(fails_by, tmp_path):
    states = fails_by(UserError("what", "advice"))

    def fail():
        own = "of the user"
        raise KeyError(own)

    try:
        fail()
    except KeyError as earlier:
        with pytest.raises(UserError):
            yolox_jax.train("finetune", tmp_path / "run", overrides=_SMALL)
        *_, (frame, _) = traceback.walk_tb(earlier.__traceback__)
    assert frame.f_locals == {"own": "of the user"} and states[0]() is None


def test_a_full_device_is_a_user_error_and_a_bug_keeps_its_type(fails_by, tmp_path):
    states = fails_by(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"))
    before = _settings_of_the_process()
    with pytest.raises(UserError, match="the memory of a device is full") as caught:
        yolox_jax.train("finetune", tmp_path / "run", overrides=_SMALL)
    assert caught.value._render_traceback_() == [f"UserError: {caught.value}"] and states[0]() is None
    fails_by(KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        yolox_jax.train("finetune", tmp_path / "run", overrides=_SMALL)
    assert _settings_of_the_process() == before


def test_an_error_of_the_user_holds_the_variables_of_the_user_and_none_of_the_package(monkeypatch, tmp_path):
    package, states = {"__name__": "yolox_jax.made"}, []
    exec("def step(state, callback):\n    callback()", package)  # noqa: S102

    def callback():
        own = "of the user"
        try:
            package["step"](state := _State(), lambda: 1 / 0)
        finally:
            states.append(weakref.ref(state))
            del state
            assert own

    monkeypatch.setattr(from_python.whole_run, "train", lambda *arguments: package["step"](None, callback))
    with pytest.raises(ZeroDivisionError) as caught:
        yolox_jax.train("finetune", tmp_path / "run", overrides=_SMALL)
    assert [state() for state in states] == [None]
    assert [entry.frame.f_locals["own"] for entry in caught.traceback if entry.name == "callback"] == ["of the user"]


def test_a_mistake_is_found_before_the_run_directory_is_made(tmp_path):
    workdir = tmp_path / "run"
    for wrong, message in (
        ({"overrides": {"batch_sise": 3}}, "no field batch_sise"),
        ({"overrides": {"parallel.coordinator": "host:1234"}}, "start train.py in each of them"),
        ({"overrides": {"num_runs": 3}}, "config.num_runs is 3, and yolox_jax.train makes one run"),
        ({"callbacks": [print]}, "no method of a callback"),
    ):
        with pytest.raises(UserError, match=message):
            yolox_jax.train("finetune", workdir, **wrong)
    with pytest.raises(UserError, match="there is no file or folder absent.pth"):
        yolox_jax.evaluate("absent.pth", "finetune", overrides=_SMALL)
    with pytest.raises(UserError, match="against compares in the report of plots: add plots=DIR"):
        yolox_jax.evaluate("absent.pth", "finetune", overrides=_SMALL, against="other.pth")
    assert not workdir.exists()


def test_outside_the_main_thread_no_signal_handler_is_set():
    noted = []

    def run():
        with stop_request() as stop:
            noted.append((stop.check(), signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert noted == [(False, before)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("python")


@pytest.fixture
def example(folder, monkeypatch, capsys):
    """Runs the example of the page, made small, and returns its variables. This test trains on one device."""
    monkeypatch.chdir(folder)
    for module in (prepare, evaluate):
        monkeypatch.setattr(module, "make_mesh", lambda: make_mesh(1))
    text = (ROOT / "docs" / "custom_data.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    with pytest.MonkeyPatch.context() as patched:
        made_small = lambda config, overrides: load_config(config, {**overrides, **_SMALL})
        patched.setattr(from_python, "load_config", made_small)
        variables = {}
        exec(program, variables)  # noqa: S102
    output = capsys.readouterr().out
    assert "step 2: AP " in output and "plots are in plots; best F1 " in output
    return variables


def _records(workdir):
    """The records of metrics.jsonl without what depends on the clock and the process."""
    by_process = ("time", "images_per_second", "data_wait", "num_programs")
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in by_process} for record in records]


class _Ends:
    """Presses Ctrl-C after one step, or fails after another, and keeps what it gets."""

    def __init__(self, interrupts_at=None, fails_at=None):
        self.starts, self.logged, self.evaluated = [], [], []
        self._interrupts_at, self._fails_at = interrupts_at, fails_at

    def on_start(self, start):
        self.starts.append(start)

    def on_log(self, record):
        self.logged.append(record["step"])
        if record["step"] == self._interrupts_at:
            signal.raise_signal(signal.SIGINT)
        if record["step"] == self._fails_at:
            raise ZeroDivisionError("of the user")

    def on_evaluation(self, step, result):
        self.evaluated.append((step, result.ap))


@pytest.mark.slow
def test_runs_in_one_process_end_resume_and_evaluate_as_those_of_programs(example, folder):
    result, again = example["result"], example["again"]
    assert again.ap == result.ap and len(result.detections) == len(again.detections) > 0
    report = (folder / "plots" / "report.html").read_text()
    assert "<title>runs/finetune/last against runs/finetune/best</title>" in report
    assert (folder / "plots" / "confusion.png").is_file()
    before = _settings_of_the_process()
    gc.collect()
    num_arrays = len(jax.live_arrays())

    def train(callback):
        config = load_config("finetune", {**_SMALL, **example["OVERRIDES"], **_SMALL})
        return yolox_jax.train(config, folder / "runs" / "ended", callbacks=[callback])

    with pytest.raises(SavedInterrupt, match="SIGINT: saved at step 2 of .*ended; the same"):
        train(_Ends(interrupts_at=1))
    with pytest.raises(ZeroDivisionError, match="of the user") as caught:  # held to the end, as a notebook does
        train(failing := _Ends(fails_at=3))
    last = _Ends()
    assert train(last).ap == result.ap
    (second,), (third,) = failing.starts, last.starts
    assert (second.first_step, third.first_step, third.total_steps, third.steps_per_epoch) == (2, 4, 6, 3)
    assert (failing.logged, last.logged, last.evaluated) == ([2, 3], [4, 5], [(5, result.ap)])
    records = _records(folder / "runs" / "ended")
    assert records == _records(folder / "runs" / "finetune") and len(records) > 6
    assert [record["step"] for record in third.records if "loss" in record] == [0, 1, 2, 3]
    gc.collect()
    assert len(jax.live_arrays()) == num_arrays
    assert "record" in caught.traceback[-1].frame.f_locals  # the user's own frames are whole
    assert _settings_of_the_process() == before


assert small.get_config().model == "pico"  # importing it has added this network
