"""The directory of a run: one run at a time in it, and nothing in it lost."""

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

# What a run writes, trackers included.
_WRITTEN = (
    *("checkpoints", "metrics.jsonl", "tensorboard", "pictures", "profile", "results.json", "predictions.jpg"),
    *("tracker.json", "wandb", "mlruns"),
)


class RunDirectoryError(RuntimeError):
    """A run directory that cannot be used now. Says why and what to do."""


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Makes the directory and holds it for one run; the lock goes with the process, however it ends.

    Raises:
      RunDirectoryError: another run holds it, or it cannot be written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise RunDirectoryError(
            f"{workdir} cannot be written to ({error.strerror}); choose another --workdir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunDirectoryError(
                f"another run is writing to {workdir}: wait for it, or choose another --workdir"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield


def set_aside(workdir: Path) -> Path | None:
    """Moves a former run's files to earlier-1, earlier-2 … inside the directory; where to, or None if there was none.

    What no run wrote stays where it is.
    """
    former = [workdir / name for name in _WRITTEN if (workdir / name).exists()]
    if not former:
        return None
    folder = next(path for i in itertools.count(1) if not (path := workdir / f"earlier-{i}").exists())
    folder.mkdir()
    for path in former:
        path.rename(folder / path.name)
    return folder


def write_atomically(path: Path, text: str) -> None:
    """The whole file or, after a death in between, the old one."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
