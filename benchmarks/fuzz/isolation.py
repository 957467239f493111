"""Reads each input in a process of its own with limits, forked from one that has imported everything."""

import contextlib
import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.fuzz.change import Change, Judged, Kind
from benchmarks.fuzz.watch import Watch
from yolox_jax.cli import terminal

RIGHT, MESSAGE, UNKNOWABLE = "right", "one message", "unknowable"
UNCLEAR, TRACEBACK, WRONG = "unclear message", "traceback", "silent wrong"
HANG, MEMORY, EXECUTION = "hang", "memory", "execution"
OUTCOMES = (RIGHT, MESSAGE, UNKNOWABLE, UNCLEAR, TRACEBACK, HANG, MEMORY, WRONG, EXECUTION)
ALLOWED = (RIGHT, MESSAGE, UNKNOWABLE)

_CPU_SECONDS = 30
_SECONDS = 120  # for what waits without computing; other programs may take the cores
_MORE_MEMORY = 1 << 30  # bytes in memory beyond those of the parent
_MORE_ADDRESSES = 6 << 30  # so that a large demand fails before the machine has no memory left
_LONGEST_MESSAGE = 3000
_FOLDER, _RESULT, _OUTPUT = "input", "outcome.json", "output.txt"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    kind: str
    number: int
    outcome: str  # one of OUTCOMES
    change: str
    detail: str  # the message, the traceback, or what is wrong
    seconds: float


@dataclasses.dataclass
class _Running:
    kind: Kind
    number: int
    folder: Path
    started: float


def read_all(
    inputs: Sequence[tuple[Kind, int]], originals: Path, seed: str, jobs: int, kept: Path | None = None
) -> Iterator[Outcome]:
    """Reads the inputs, `jobs` at a time, in the order in which they end. Input 0 of a kind is not changed."""
    waiting, running = list(inputs)[::-1], dict[int, _Running]()
    base_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with tempfile.TemporaryDirectory(prefix="fuzz_", ignore_cleanup_errors=True) as scratch:
        while waiting or running:
            while waiting and len(running) < jobs:
                kind, number = waiting.pop()
                folder = kept or Path(tempfile.mkdtemp(dir=scratch))
                folder.mkdir(parents=True, exist_ok=True)
                pid = _fork(kind, number, originals / kind.name, folder, seed)
                running[pid] = _Running(kind, number, folder, time.monotonic())
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid in running:
                ended = running.pop(pid)
                yield _outcome(ended, status, usage.ru_maxrss * 1024 - base_bytes)
                if kept is None:
                    shutil.rmtree(ended.folder, ignore_errors=True)
                continue
            time.sleep(0.002)
            for pid, each in running.items():
                if time.monotonic() - each.started > _SECONDS:
                    os.kill(pid, signal.SIGKILL)


def make_all(kinds: Sequence[Kind], originals: Path) -> None:
    """Writes the input that is changed of each kind, in processes of their own: this one must not start threads."""
    for kind in kinds:
        pid = os.fork()
        if pid == 0:
            try:
                (originals / kind.name).mkdir()
                kind.make(originals / kind.name)
                os._exit(0)
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            finally:
                os._exit(1)
        if os.waitpid(pid, 0)[1] != 0:
            raise SystemExit(f"the input of kind {kind.name} cannot be made")


def _fork(kind: Kind, number: int, original: Path, folder: Path, seed: str) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _read_one(kind, number, original, folder, random.Random(f"{seed} {kind.name} {number}"))
        finally:
            os._exit(0)
    return pid


def _read_one(kind: Kind, number: int, original: Path, folder: Path, rng: random.Random) -> None:
    """Runs in the child: changes, reads and judges one input, and writes the outcome."""
    output = os.open(folder / _OUTPUT, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    place = folder / _FOLDER
    shutil.copytree(original, place, symlinks=True)
    (place / "trapped.py").write_text("Feature = dict\n")  # nothing may import it
    outcome = {"outcome": TRACEBACK, "change": "the harness", "detail": ""}
    try:
        change = kind.change(place, rng) if number else Change("unchanged", is_harmless=True)
        outcome |= {"outcome": HANG, "change": change.text}
        _note(folder, outcome)
        found, detail = _read(kind, place, change)
        outcome |= {"outcome": found, "detail": detail}
    except BaseException:  # noqa: BLE001  (also a SystemExit of the harness itself)
        outcome |= {"outcome": TRACEBACK, "detail": traceback.format_exc()}
    _note(folder, outcome)


def _read(kind: Kind, place: Path, change: Change) -> tuple[str, str]:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["fuzz"])  # user_errors reads --debug
    os.chdir(place)
    os.environ["YOLOX_JAX_HOME"] = tempfile.tempdir = str(place.parent / "temporary")
    os.mkdir(tempfile.tempdir)
    sys.path.insert(0, "")  # as for a program that is started by "python -m"
    watch = Watch(place.parent)
    result, message = None, ""
    with _limits():
        watch.is_on = True
        try:
            with terminal.user_errors():
                result = kind.read(place)
        except SystemExit as error:
            message = str(error.code)
        except MemoryError:
            return MEMORY, traceback.format_exc()
        finally:
            watch.is_on = False
    if watch.found or watch.modules_from(place):
        return EXECUTION, "; ".join((*watch.found, *watch.modules_from(place)))
    if message:
        return _judge_message(message, place, change)
    judged: Judged = kind.judge(place, change, result)
    if judged.wrong:
        return WRONG, judged.wrong
    return (UNKNOWABLE if judged.is_unknowable else RIGHT), ""


def _judge_message(message: str, place: Path, change: Change) -> tuple[str, str]:
    if change.is_harmless:
        return WRONG, f"refused: {message}"
    if "MemoryError" in message or "nsufficient memory" in message:
        return MEMORY, message
    names = any(name in message for name in (str(place), "config.", *change.names))
    is_clear = message.startswith("error: ") and len(message) < _LONGEST_MESSAGE and names
    return (MESSAGE if is_clear and _can_be_shown(message) else UNCLEAR), message


def _can_be_shown(message: str) -> bool:
    try:
        message.encode()
    except UnicodeEncodeError:
        return False
    return "\x1b" not in message and "\0" not in message


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _MORE_ADDRESSES
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + _CPU_SECONDS, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    yield
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _note(folder: Path, outcome: dict[str, Any]) -> None:
    (folder / _RESULT).write_text(json.dumps(outcome))


def _outcome(ended: _Running, status: int, more_bytes: int) -> Outcome:
    """Combines what the child wrote with how it ended: killed by a limit or by its own crash, it wrote "hang"."""
    noted = json.loads((ended.folder / _RESULT).read_text())
    outcome, detail = noted["outcome"], noted["detail"]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        outcome = HANG if number in (signal.SIGXCPU, signal.SIGKILL) else TRACEBACK
        detail = f"{name}; {(ended.folder / _OUTPUT).read_text(errors='replace')[-3000:]}"
    elif more_bytes > _MORE_MEMORY:
        outcome, detail = MEMORY, f"{more_bytes / 1e9:.1f} GB; {detail}"
    seconds = time.monotonic() - ended.started
    return Outcome(ended.kind.name, ended.number, outcome, noted["change"], detail, seconds)
