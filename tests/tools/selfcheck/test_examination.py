"""Each check runs apart: a crash, a hang or the end of the time is a line, and the next check runs."""

import dataclasses
import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest

from yolox_jax.tools.plan.compiling import Compiled
from yolox_jax.tools.selfcheck import device, examination, isolation, prediction, report
from yolox_jax.tools.selfcheck.checks import Check, all_checks
from yolox_jax.tools.selfcheck.isolation import Ended
from yolox_jax.tools.selfcheck.report import Line
from yolox_jax.tools.selfcheck.setting import SIZES, Setting

_SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def setting(tmp_path):
    return Setting(SIZES["small"], tmp_path, tmp_path)


def _fake(monkeypatch, setting, checks, ends):
    """Runs the checks in this process; `ends` says how each would have ended in its own."""
    seen = []

    def run(command, log, *, environment, silence_s, seconds_left):
        (name,) = (each.removeprefix("--check=") for each in command if each.startswith("--check="))
        seen.append(name)
        examination.run_here(setting, next(check for check in checks if check.name == name))
        return ends.get(name, Ended("", out_of_time=False))

    monkeypatch.setattr(isolation, "run", run)
    lines, seconds = examination.examine(setting, checks, seconds=60.0)
    assert seen == list(seconds) == [check.name for check in checks]
    return [(line.name, line.status, line.text) for line in lines]


def _check(name, lines, recorded):
    def run(setting, record):
        for line in recorded:
            record(line)

    return Check(name, lines, run)


def test_a_check_that_crashes_fails_its_missing_lines_and_the_next_check_runs(monkeypatch, setting):
    found = Line("one", "measured", "1 s")
    checks = [
        _check("first", ("one", "two"), [dataclasses.replace(found, text="2 s"), found]),
        _check("second", ("three",), [Line("three", "pass", "equal")]),
        _check("third", ("four",), [Line("four", "pass", "equal")]),
        _check("fourth", ("five", "six"), [Line("five", "FAIL", "differs")]),
    ]
    crash = Ended("killed by SIGSEGV", out_of_time=False)
    ends = {"first": crash, "third": crash, "fourth": Ended("out of time", out_of_time=True)}
    assert _fake(monkeypatch, setting, checks, ends) == [
        ("one", "measured", "1 s"),
        ("two", "FAIL", "killed by SIGSEGV"),
        ("three", "pass", "equal"),
        ("four", "pass", "equal"),
        ("third: end", "FAIL", "killed by SIGSEGV"),
        ("five", "FAIL", "differs"),
        ("six", "skipped", "out of time"),
    ]


def test_the_report_is_written_after_each_check_and_has_passed_only_at_the_end(monkeypatch, setting):
    reports = []

    def run(setting, record):
        if (setting.output / "report.json").exists():
            reports.append(json.loads((setting.output / "report.json").read_text()))
        record(Line(f"line {len(reports)}", "pass", "equal"))

    checks = [Check(f"check {number}", (f"line {number}",), run) for number in range(3)]
    _fake(monkeypatch, setting, checks, {})
    reports.append(json.loads((setting.output / "report.json").read_text()))
    assert [len(each["lines"]) for each in reports] == [1, 2, 3]
    assert [(each["is_complete"], each["passed"]) for each in reports] == [(False, False)] * 2 + [(True, True)]


def test_without_time_nothing_is_started_and_every_line_is_skipped(monkeypatch, setting):
    monkeypatch.setattr(isolation, "run", None)
    checks = all_checks(SIZES["full"])
    lines, _ = examination.examine(setting, checks, seconds=0.0)
    assert [line.name for line in lines] == [name for check in checks for name in check.lines]
    assert {(line.status, line.text) for line in lines} == {("skipped", "out of time")}


def test_the_cpu_is_there_beside_an_accelerator_that_jax_platforms_names(monkeypatch, setting):
    for given, expected in (("cuda", "cuda,cpu"), ("tpu,cpu", "tpu,cpu"), ("cpu", "cpu")):
        monkeypatch.setenv("JAX_PLATFORMS", given)
        assert examination._environment(setting)["JAX_PLATFORMS"] == expected
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    environment = examination._environment(setting)
    assert "JAX_PLATFORMS" not in environment and environment["JAX_COMPILATION_CACHE_DIR"] == "mine"


def _run(tmp_path, program, silence_s=60.0, seconds_left=60.0):
    command = [sys.executable, "-u", "-c", program]
    return isolation.run(
        command, tmp_path / "log", environment=dict(os.environ), silence_s=silence_s, seconds_left=seconds_left
    )


def test_how_a_program_ends_is_its_reason(tmp_path):
    assert _run(tmp_path, "print('fine')") == Ended("", out_of_time=False)
    assert _run(tmp_path, "print('a'); raise ValueError('broken')").reason.startswith(
        f"exit code 1: ValueError: broken; see {tmp_path}"
    )
    assert _run(tmp_path, "import os; os.kill(os.getpid(), 11)").reason.startswith("killed by SIGSEGV; see")


def _let_time_pass_by_lines(monkeypatch, tmp_path, seconds):
    """Each line of the program's output is so many seconds of the clock, however busy the machine is."""
    log = tmp_path / "log"
    clock = SimpleNamespace(monotonic=lambda: seconds * log.read_text().count("\n") if log.exists() else 0.0)
    monkeypatch.setattr(isolation, "time", clock)


def test_a_program_that_prints_nothing_hangs(tmp_path):
    assert _run(tmp_path, _SLEEP, silence_s=0.3).reason.startswith("hangs: no output for 0 s; see")


def test_a_program_that_prints_does_not_hang_however_long_it_takes(tmp_path, monkeypatch):
    _let_time_pass_by_lines(monkeypatch, tmp_path, seconds=50.0)
    program = "import time\nfor i in range(5): print(i); time.sleep(0.2)"
    assert _run(tmp_path, program, silence_s=60.0, seconds_left=1000.0) == Ended("", out_of_time=False)


def test_out_of_time_ends_the_program_and_its_children(tmp_path, monkeypatch):
    _let_time_pass_by_lines(monkeypatch, tmp_path, seconds=50.0)
    child = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '{_SLEEP}']).pid); {_SLEEP}"
    assert _run(tmp_path, child, seconds_left=10.0) == Ended("out of time", out_of_time=True)
    monkeypatch.undo()
    pid = int((tmp_path / "log").read_text())
    for _ in range(100):  # init reaps it in its own time
        if not _is_running(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child is still running")


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_long_text_stays_in_its_column_and_the_summary_counts():
    line = Line("own type", "measured", " ".join(["word"] * 40))
    first, *rest = report.as_text(line).splitlines()
    assert first.startswith("measured  own type              word")
    assert rest and all(each.startswith(" " * 32 + "word") and len(each) <= 120 for each in rest)
    lines = [line, Line("loss", "FAIL", "differs", {"difference": float("nan")})]
    assert report.summary(lines, 12.3) == "0 passed, 1 failed, 1 measured, 0 skipped; 12 s"
    as_json = report.as_json(lines, {"float32": 12.3})
    assert json.loads(json.dumps(as_json, allow_nan=False))["lines"][1]["figures"] == {"difference": "nan"}
    assert not as_json["passed"]


@dataclasses.dataclass
class _Device:
    device_kind: str


def test_a_tpu_that_the_plan_knows_has_its_prediction_beside_the_measurement(monkeypatch):
    text = (
        "ENTRY %main (x: f32[250]) -> f32[250] {\n  %x = f32[250]{0} parameter(0)\n  %y = f32[250]{0} negate(%x)\n}\n"
    )
    compiled = Compiled(text, 197e9, 2e3, argument_bytes=1000, temporary_bytes=0, code_bytes=7, peak_bytes=2000)
    monkeypatch.setattr(prediction, "figures_of", lambda _: compiled)
    line = prediction.line("s", _Device("TPU v5 lite"), None, batch_size=16, images_per_s=500.0)
    assert line.status == "measured" and line.figures["topology"] == "v5e:1x1"
    # 16 images take 197 GFLOP, which is 1 ms of the chip's 197 TFLOP/s.
    assert line.text == "v5e: at most 16000 images/s in 0.00 GB, bound by matrix units; 3% of it measured"
    assert prediction.line("s", _Device("Quadro K620"), None, 16, 500.0).status == "skipped"


def test_a_card_that_the_plan_knows_has_its_prediction_beside_the_measurement():
    # One kernel reads and writes 320 MB, which takes 2 ms at the T4's 320 GB/s.
    text = (
        "ENTRY %main (x: f32[80000000]) -> f32[80000000] {\n  %x = f32[80000000]{0} parameter(0)\n"
        "  %y = f32[80000000]{0} negate(%x)\n}\n"
    )
    line = prediction.line("s", _Device("Tesla T4"), SimpleNamespace(as_text=lambda: text), 8, 1000.0)
    assert line.status == "measured" and line.figures["num_kernels"] == 1
    assert line.text == "T4: at most 4000 images/s by 1 kernels, bound by HBM bandwidth; 25% of it measured"


@pytest.mark.parametrize(
    ("files", "platforms", "status"),
    [
        ([], None, "measured"),
        (["nvidia0"], None, "FAIL"),
        (["nvidia0"], "cpu", "measured"),
        (["nvidiactl"], None, "measured"),
    ],
)
def test_an_accelerator_that_jax_does_not_use_is_a_failed_line(tmp_path, monkeypatch, files, platforms, status):
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(device, "_DEVICE_FILES", (str(tmp_path / "nvidia[0-9]*"),))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    lines = []
    device.device(Setting(SIZES["small"], tmp_path, tmp_path), lines.append)
    assert [line.status for line in lines] == [status]
    assert (str(tmp_path / "nvidia0") in lines[0].text) == (status == "FAIL")


def test_a_report_in_which_nothing_was_compared_has_not_passed():
    assert not report.as_json([Line("loss", "skipped", "out of time")], {})["passed"]
    assert report.as_json([Line("loss", "pass", ""), Line("plan", "skipped", "")], {})["passed"]
