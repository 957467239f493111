"""The claim of a run on its directory in a bucket: an object that only one run at a time may write.

There are no locks in a bucket, but two atomic requests: create an object if it is absent, and replace it if it still
has the version that was read. A living run replaces its claim again and again. A claim that does not change any more is
that of a dead run; how long it has not is measured here, on one clock, so machines need not agree on the time.
"""

import contextlib
import dataclasses
import json
import math
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from yolox_jax import storage
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.storage import Location, Patience
from yolox_jax.training.run_directory import RunDirectoryError

NAME = "claim.json"
REFUSED_SECONDS = 120.0  # for which a run that has begun repeats a refused request, in case its token is being renewed
_HEARTBEAT_SECONDS = 15.0
_EXPIRES_SECONDS = 60.0  # four heartbeats; a run that cannot reach its bucket for so long may lose it
_TRUSTED_SECONDS = 30.0  # after a renewal; then a write of half a minute still ends before the claim expires
_LOOK_SECONDS = 2.0


class ClaimLost(UserError):
    """Another run has taken the directory over."""


class BucketClaim:
    """Holds the claim until `release`, by a thread that renews it."""

    def __init__(self, run: Location):
        """Takes the claim, and waits for as long as it takes to see whether one that is there is still renewed.

        Raises:
          RunDirectoryError: another run is alive.
          StorageError: the bucket refuses or cannot be reached.
        """
        self._run = run
        self._path = run / NAME
        self.run = uuid.uuid4().hex
        self.previous = ""  # the run that held the claim last
        self._content = {"run": self.run, "host": socket.gethostname(), **dataclasses.asdict(_this_process())}
        self._num_beats = 0
        self._lock = threading.Lock()  # the heartbeat and `confirm` replace the same object
        self._error: Exception | None = None
        self._ended = threading.Event()
        self._renewed = _clock()
        self._version = self._take()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises ClaimLost if the claim is known to be lost, or a StorageError if the bucket refused to renew it."""
        if self._error is not None:
            raise self._error

    def check_before_write(self, patience: Patience) -> None:
        """As `check`, and renews a claim that may have expired: this process may have been paused for long."""
        self.check()
        if _clock() - self._renewed > _TRUSTED_SECONDS:
            self.confirm(patience)

    def confirm(self, patience: Patience) -> None:
        """Renews the claim now. Raises ClaimLost if it is lost, or as `patience` says."""
        while not self._lock.acquire(timeout=_LOOK_SECONDS):  # the heartbeat waits for the bucket
            patience.on_wait(f"{self._path} cannot be reached (no answer yet); trying again")
        try:
            self.check()
            now = _clock()
            version = storage.replace(self._path, self._next(), self._version, patience)
            if version is None:
                self._error = ClaimLost(
                    f"another run has taken {self._run} over, while this one could not reach it",
                    "this run writes nothing more; end one of the two",
                )
                raise self._error
            self._version, self._renewed = version, now
        finally:
            self._lock.release()

    def release(self) -> None:
        """Gives the claim up, so that the next run need not wait. Never raises: an unreleased claim expires."""
        self._ended.set()
        self._thread.join(_LOOK_SECONDS)
        with contextlib.suppress(Exception):
            if self._error is None and self._lock.acquire(timeout=_LOOK_SECONDS):
                storage.replace(self._path, self._next(released=True), self._version, Patience(5))

    def _beat(self) -> None:
        def give_up_if_ended(reason: str) -> None:
            if self._ended.is_set():
                raise RunDirectoryError(reason, "the run has ended")

        while not self._ended.wait(_HEARTBEAT_SECONDS):
            try:
                self.confirm(Patience(math.inf, give_up_if_ended, REFUSED_SECONDS))
            except Exception as error:  # noqa: BLE001  (the main thread raises it)
                self._error = self._error or error
                return

    def _take(self) -> str:
        while True:
            version = storage.create(self._path, self._next())
            if version is None and (dead := self._dead_version()) is not None:
                version = storage.replace(self._path, self._next(), dead)
            if version is not None:
                return version

    def _dead_version(self) -> str | None:
        """Returns the version of a claim that nobody holds any more; None if there is none.

        Raises:
          RunDirectoryError: the claim is renewed while we watch.
        """
        first, end = None, math.inf
        while True:
            try:
                text, version = storage.read_versioned(self._path)
            except NotFoundError:
                return None
            content = _parse(text)
            if content.get("released") or _is_dead(content) or time.monotonic() > end:
                self.previous = str(content.get("run", ""))
                return version
            owner = f"process {content.get('pid', '?')} on {content.get('host', 'another machine')}"
            if first is None:
                first, end = version, time.monotonic() + _EXPIRES_SECONDS
                print(f"{self._run} is claimed by {owner}: looking whether it is alive, for a minute", flush=True)
            elif version != first:
                raise RunDirectoryError(
                    f"another run is writing to {self._run}: {owner}", "wait for it, or choose another --workdir"
                )
            time.sleep(_LOOK_SECONDS)

    def _next(self, released: bool = False) -> bytes:
        self._num_beats += 1  # so that no two contents are equal
        return json.dumps({**self._content, "beat": self._num_beats, "released": released}).encode()


def _clock() -> float:
    """Seconds that also pass while the machine is suspended, if it has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclasses.dataclass(frozen=True)
class _Process:
    """A process, so that another one on the same machine can tell whether it still runs."""

    machine: str  # of this boot and process namespace; empty if unknown
    pid: int
    started: str  # since a number may be given to another process later


def _this_process() -> _Process:
    return _Process(_machine(), os.getpid(), _started(os.getpid()) or "")


def _is_dead(content: dict[str, Any]) -> bool:
    """Returns whether the process that made a claim ran on this machine, and does not run any more."""
    machine, pid = content.get("machine"), content.get("pid")
    if not machine or machine != _machine() or type(pid) is not int:
        return False
    return _started(pid) != content.get("started")


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # two containers have other numbers for their processes
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Returns when a process started, in the kernel's ticks; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _parse(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {}  # not ours, or damaged: it expires
