"""Checks a new accelerator in at most 15 minutes: is it right, is it fast, does a killed run resume on it?

python -m yolox_jax.tools.selfcheck [--output=DIR] [--size=small] [--minutes=15]

Prints a table, and writes report.json, a profile of each network and the output of each check to --output. Exit code 1
if a line failed. Needs no data and no weights. Everything runs on the first device; only train.py, which the check of
resuming starts, takes all. --size=small is for a processor: it shows in two minutes that the program works.
"""

import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from absl import flags

from yolox_jax.cli.outputs import output_folder
from yolox_jax.cli.terminal import quiet_libraries, run_program, user_errors
from yolox_jax.errors import writing
from yolox_jax.tools.selfcheck import isolation, report
from yolox_jax.tools.selfcheck.checks import Check, all_checks
from yolox_jax.tools.selfcheck.report import Line
from yolox_jax.tools.selfcheck.setting import SIZES, Setting

_OUTPUT = flags.DEFINE_string("output", "selfcheck", "The folder for report.json, profiles and logs.")
_SIZE = flags.DEFINE_enum("size", "full", list(SIZES), "How much is run.")
_MINUTES = flags.DEFINE_float("minutes", 15.0, "Whatever has not run by then is skipped.", lower_bound=0.0)
# The program starts itself with these two for each check.
_CHECK = flags.DEFINE_string("check", None, "Runs this check alone, in this process.")
_SCRATCH = flags.DEFINE_string("scratch", None, "The folder of that check for what is not kept.")

_SILENCE_S = 300.0  # without output: compiling, which prints nothing, takes two minutes for a large network


def examine(setting: Setting, checks: Sequence[Check], seconds: float) -> tuple[list[Line], dict[str, float]]:
    """Runs each check in a process of its own, one after another, and prints its lines.

    A check that crashes or hangs is a failed line, and the next one runs. This process never touches a device, which
    may belong to one process at a time. Returns all lines, and the seconds that each check took.
    """
    end = time.monotonic() + seconds
    lines: list[Line] = []
    seconds_by_check = {}
    for check in checks:
        start = time.monotonic()
        found = _run(setting, check, end - start)
        seconds_by_check[check.name] = round(time.monotonic() - start, 1)
        for line in found:
            print(report.as_text(line), flush=True)
        lines += found
    return lines, seconds_by_check


def _run(setting: Setting, check: Check, seconds_left: float) -> list[Line]:
    if seconds_left <= 0:
        return check.complete([], "skipped", "out of time")
    records = _records_file(setting, check)
    log = setting.output / f"{check.name.replace(' ', '_')}.log"
    command = [sys.executable, "-m", "yolox_jax.tools.selfcheck", f"--check={check.name}", f"--size={_SIZE.value}"]
    command += [f"--output={setting.output}", f"--scratch={setting.scratch}"]
    limits = {"silence_s": _SILENCE_S, "seconds_left": seconds_left}
    ended = isolation.run(command, log, environment=_environment(setting), **limits)
    lines = records.read_text().splitlines(keepends=True) if records.exists() else []
    found = [Line(**json.loads(line)) for line in lines if line.endswith("\n")]  # the last may be half-written
    if ended.out_of_time:
        return check.complete(found, "skipped", "out of time")
    return check.complete(found, "FAIL", ended.reason or f"nothing was found; see {log}")


def _environment(setting: Setting) -> dict[str, str]:
    """The environment of a check: with a compilation cache of its own, and the CPU beside the accelerator."""
    environment = {"JAX_COMPILATION_CACHE_DIR": str(setting.scratch / "programs")} | os.environ
    environment |= {"PYTHONUNBUFFERED": "1"}
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):
        environment["JAX_PLATFORMS"] = f"{platforms},cpu"
    return environment


def _records_file(setting: Setting, check: Check) -> Path:
    return setting.scratch / f"{check.name}.jsonl"


def _run_here(setting: Setting, check: Check) -> None:
    """Runs a check in this process; each of its lines is in a file as soon as it is known."""
    with _records_file(setting, check).open("a") as file:

        def record(line: Line) -> None:
            file.write(json.dumps(dataclasses.asdict(line)) + "\n")
            file.flush()
            print(report.as_text(line), flush=True)

        check.run(setting, record)


def main() -> None:
    quiet_libraries()
    size = SIZES[_SIZE.value]
    checks = all_checks(size)
    with user_errors(), output_folder(_OUTPUT.value) as folder:
        output = cast(Path, folder).absolute()
        if _CHECK.value is not None:
            (check,) = (each for each in checks if each.name == _CHECK.value)
            _run_here(Setting(size, output, Path(str(_SCRATCH.value))), check)
            return
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="selfcheck_", ignore_cleanup_errors=True) as scratch:
            lines, seconds = examine(Setting(size, output, Path(scratch)), checks, 60 * _MINUTES.value)
        with writing(output):
            (output / "report.json").write_text(json.dumps(report.as_json(lines, seconds), indent=2) + "\n")
        print(f"{report.summary(lines, sum(seconds.values()))}; written to {_OUTPUT.value}")
    sys.exit(1 if any(line.status == "FAIL" for line in lines) else 0)


if __name__ == "__main__":
    run_program(main)
