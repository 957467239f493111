"""The directory of a run: only one run at a time writes to it, and files of an earlier run are moved, not deleted."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from yolox_jax.errors import UserError
from yolox_jax.locks import locked

# Everything a run writes, trackers included.
_WRITTEN = (
    *("checkpoints", "metrics.jsonl", "tensorboard", "pictures", "profile", "results.json", "predictions.jpg"),
    *("tracker.json", "wandb", "mlruns"),
)


class RunDirectoryError(UserError):
    """The run directory is in use, or cannot be written."""


@contextlib.contextmanager
def writing(
    path: Path, advice: str = "free some space; the same command resumes from the last checkpoint"
) -> Iterator[None]:
    """Turns an OSError of the block, which writes to `path` in a run directory, into a RunDirectoryError."""
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written ({error.strerror or error})", advice) from error


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Creates the directory and locks it for one run. The lock ends with the process, however that ends.

    Raises:
      RunDirectoryError: another run holds the directory, or it cannot be written.
    """

    def refuse() -> NoReturn:
        raise RunDirectoryError(f"another run is writing to {workdir}", "wait for it, or choose another --workdir")

    with contextlib.ExitStack() as held:
        with writing(workdir, advice="choose another --workdir"):
            workdir.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(workdir / ".lock", on_busy=refuse))
        yield


def set_aside(workdir: Path) -> Path | None:
    """Moves the files of an earlier run to earlier-1, earlier-2 … in the directory and returns that folder, or None.

    Files that no run writes stay where they are.

    Raises:
      RunDirectoryError: the directory cannot be written.
    """
    written = [workdir / name for name in _WRITTEN if (workdir / name).exists()]
    if not written:
        return None
    folder = next(path for i in itertools.count(1) if not (path := workdir / f"earlier-{i}").exists())
    with writing(workdir, advice="choose another --workdir"):
        folder.mkdir()
        for path in written:
            path.rename(folder / path.name)
    return folder


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file. A process that dies meanwhile leaves the old content or the new, never a part of it.

    Raises:
      RunDirectoryError: the disk is full or read-only.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with writing(path):
        with unfinished.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
