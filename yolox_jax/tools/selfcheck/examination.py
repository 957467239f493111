"""Runs each check in a process of its own, so that a failure does not hide the next line."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from yolox_jax import storage
from yolox_jax.tools.selfcheck import isolation, report
from yolox_jax.tools.selfcheck.checks import Check
from yolox_jax.tools.selfcheck.report import Line
from yolox_jax.tools.selfcheck.setting import Setting

_SILENCE_S = 300.0  # without output: compiling prints nothing, and takes minutes for a large network or batch


def examine(setting: Setting, checks: Sequence[Check], seconds: float) -> tuple[list[Line], dict[str, float]]:
    """Runs one check after another, prints its lines, and writes all lines so far to report.json.

    A check that crashes or hangs is a failed line, and the next one runs. This process never touches a device, which
    may belong to one process at a time. Returns all lines, and the seconds that each check took.
    """
    end = time.monotonic() + seconds
    lines: list[Line] = []
    seconds_by_check = {}
    for check in checks:
        start = time.monotonic()
        found = _run_apart(setting, check, end - start)
        seconds_by_check[check.name] = round(time.monotonic() - start, 1)
        for line in found:
            print(report.as_text(line), flush=True)
        lines += found
        content = report.as_json(lines, seconds_by_check, is_complete=check is checks[-1])
        storage.write_bytes(setting.output / "report.json", f"{json.dumps(content, indent=2)}\n".encode())
    return lines, seconds_by_check


def _run_apart(setting: Setting, check: Check, seconds_left: float) -> list[Line]:
    if seconds_left <= 0:
        return check.complete([], "skipped", "out of time")
    records = _records_file(setting, check)
    log = setting.output / f"{check.name.replace(' ', '_')}.log"
    command = [sys.executable, "-m", "yolox_jax.tools.selfcheck", f"--check={check.name}"]
    command += [f"--size={setting.size.name}", f"--output={setting.output}", f"--scratch={setting.scratch}"]
    limits = {"silence_s": _SILENCE_S, "seconds_left": seconds_left}
    ended = isolation.run(command, log, environment=_environment(setting), **limits)
    lines = records.read_text().splitlines(keepends=True) if records.exists() else []
    found = [Line(**json.loads(line)) for line in lines if line.endswith("\n")]  # the last may be half-written
    if ended.out_of_time:
        return check.complete(found, "skipped", "out of time")
    completed = check.complete(found, "FAIL", ended.reason or f"not recorded; see {log}")
    if ended.reason and not any(line.status == "FAIL" for line in completed):
        completed.append(Line(f"{check.name}: end", "FAIL", ended.reason))  # it found everything, and then crashed
    return completed


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


def run_here(setting: Setting, check: Check) -> None:
    """Runs a check in this process; each of its lines is in a file as soon as it is known."""
    with _records_file(setting, check).open("a") as file:

        def record(line: Line) -> None:
            file.write(json.dumps(dataclasses.asdict(line)) + "\n")
            file.flush()
            print(report.as_text(line), flush=True)

        check.run(setting, record)
