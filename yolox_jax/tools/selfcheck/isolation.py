"""Runs a command in a process group of its own, and ends it if it hangs or the time is up."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_POLL_SECONDS = 0.1
_SIGNIFICANT = 200  # characters of the last line of output that a reason quotes


class Ended(NamedTuple):
    """How a command ended. `reason` is empty if it ended by itself with exit code 0."""

    reason: str
    out_of_time: bool


def run(
    command: Sequence[str], log: Path, *, environment: dict[str, str], silence_s: float, seconds_left: float
) -> Ended:
    """Runs the command, with its output in `log`, until it ends.

    Every line of output counts as progress: without any for `silence_s` seconds the command hangs, and is killed. It is
    also killed after `seconds_left`. Its own children die with it.
    """
    deadline = time.monotonic() + seconds_left
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            num_bytes, last_progress = 0, time.monotonic()
            while not _has_ended(process):
                now = time.monotonic()
                if log.stat().st_size != num_bytes:
                    num_bytes, last_progress = log.stat().st_size, now
                if now > deadline:
                    return Ended("out of time", out_of_time=True)
                if now - last_progress > silence_s:
                    return Ended(f"hangs: no output for {silence_s:.0f} s; see {log}", out_of_time=False)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return Ended(_reason(process.returncode, log), out_of_time=False)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _reason(code: int, log: Path) -> str:
    if code == 0:
        return ""
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = f": {lines[-1].strip()[:_SIGNIFICANT]}" if lines else ""
    return f"{how}{last}; see {log}"
