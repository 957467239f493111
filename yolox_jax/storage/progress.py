"""Shows how far a transfer is."""

import datetime
import sys
import threading
import time
from collections.abc import Callable
from typing import Self


class Progress:
    """Shows a transfer: one line that is updated on a terminal, a line every 10 % elsewhere."""

    def __init__(self, name: str, log: Callable[[str], object], total: int | None = None, done: int = 0) -> None:
        self._name = name
        self._log = log
        self._on_terminal = log is print and sys.stdout.isatty()
        self._total, self._done = total, done
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._start_time = self._shown_time = time.monotonic()
        self._start_bytes: int | None = None
        self._shown_tenth = 0
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_terminal:
            print()

    def add(self, num_bytes: int) -> None:
        """Notes so many more bytes; from any thread. A negative number takes some back."""
        with self._lock:
            self._done += num_bytes
            self.show(self._done, self._total)

    def show(self, done: int, total: int | None) -> None:
        """Shows so many bytes of `total`, which is None if it is not known."""
        now = time.monotonic()
        if self._start_bytes is None:  # the speed does not count what an earlier transfer received
            self._start_bytes = done
        tenth = 10 * done // total if total else 0
        finished = done == total
        if not finished and (now - self._shown_time < 0.1 if self._on_terminal else tenth <= self._shown_tenth):
            return
        self._shown_time, self._shown_tenth = now, tenth
        speed = (done - self._start_bytes) / max(now - self._start_time, 1e-3)
        share = f"{100 * done // total:3d} % of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        line = f"{self._name}: {share}, {speed / 1e6:.1f} MB/s"
        if total and speed and not finished:
            line += f", ETA {datetime.timedelta(seconds=int((total - done) / speed))}"
        if self._on_terminal:
            print(f"\r{line}  ", end="", flush=True)
        else:
            self._log(line)
