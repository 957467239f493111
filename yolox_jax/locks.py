"""Locks between processes. A lock is released when the process that holds it ends, even if it is killed."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def locked(
    file: Path, on_busy: Callable[[], object], on_no_locks: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Holds the lock on `file`, an empty file that is created if absent and left in place.

    If another process holds it, calls `on_busy`, which may raise, and then waits. On a file system without locks, calls
    `on_no_locks`, and nothing is locked.

    Raises:
      OSError: the file cannot be created.
    """
    file.open("a").close()
    # filelock's fallback, a marker file, outlives a killed process: the run could not resume on another machine.
    lock = FileLock(file, fallback_to_soft=False)
    if not _acquire(lock, on_no_locks, blocking=False):
        on_busy()
        _acquire(lock, on_no_locks, blocking=True)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, on_no_locks: Callable[[], object], blocking: bool) -> bool:
    """Tries to take the lock; returns False if another process holds it."""
    try:
        lock.acquire(blocking=blocking)
    except Timeout:
        return False
    except OSError:  # the file exists, so this is a file system without locks
        on_no_locks()
    return True
