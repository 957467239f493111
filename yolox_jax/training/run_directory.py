"""The directory of a run: only one run at a time writes to it, and files of an earlier run are moved, not deleted."""

import contextlib
import itertools
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from yolox_jax import storage
from yolox_jax.errors import UserError
from yolox_jax.locks import locked
from yolox_jax.storage import Location

logger = logging.getLogger("yolox_jax.training")

DAMAGED = "damaged"  # files that were cut or changed, which a resumed run has set aside (history.py)
# Everything a run writes, trackers included.
WRITTEN = (
    *("checkpoints", "metrics.jsonl", "tensorboard", "pictures", "profile", "results.json", "predictions.jpg"),
    *("tracker.json", "wandb", "mlruns", DAMAGED),
)
_LOCK = ".lock"


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


def path_fault(path: Path) -> str:
    """Returns why no checkpoint below this path could be read, such as "has a backslash in its path"; or nothing."""
    shown = str(path.absolute())
    if os.sep == "/" and "\\" in shown:
        return "has a backslash in its path, where tensorstore finds no files"
    if "gs:/" in shown:
        return "has gs:/ in its path, which orbax takes for an address"
    try:
        shown.encode()
    except UnicodeEncodeError:
        return "is not UTF-8, which tensorstore needs"
    return ""


def pattern_fault(path: Path) -> str:
    """Returns why orbax cannot write below this path, or nothing. It can read there."""
    if re.search(r"[]*?[]", str(path.absolute())):  # orbax would look for its own files by a pattern, in vain
        return "has one of the characters []*? in its path"
    return ""


def check_path(path: Path, advice: str) -> None:
    """Raises a RunDirectoryError with this advice if checkpoints could not be written below the path and read."""
    if fault := path_fault(path) or pattern_fault(path):
        raise RunDirectoryError(f"{path} {fault}", advice)


@contextlib.contextmanager
def claim(workdir: Path, named: Location | None = None) -> Iterator[None]:
    """Creates the directory and locks it for one run. The lock ends with the process, however that ends.

    `named` is what messages call the directory, if it is another name. An error of the run is reported as that of a
    directory that was deleted or moved meanwhile, if it was.

    Raises:
      RunDirectoryError: another run holds the directory, or it cannot be written.
      UserError: it is an address in a bucket, such as Path("gs://bucket/run"), which would be a local folder "gs:".
    """
    storage.resolve(str(workdir))

    def refuse() -> NoReturn:
        raise RunDirectoryError(
            f"another run is writing to {named or workdir}", "wait for it, or choose another --workdir"
        )

    def warn() -> None:
        logger.warning("%s is on a file system without locks: a second run in it would not be noticed", workdir)

    with contextlib.ExitStack() as held:
        with writing(workdir, advice="choose another --workdir"):
            workdir.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(workdir / _LOCK, on_busy=refuse, on_no_locks=warn))
        try:
            yield
        except (UserError, OSError):
            check_there(workdir, named)
            raise


def check_there(workdir: Path, named: Location | None = None) -> None:
    """Raises a RunDirectoryError if a directory that was claimed has been deleted or moved."""
    if not (workdir / _LOCK).exists():
        raise RunDirectoryError(
            f"{named or workdir} was deleted or moved while the run was writing to it",
            "put it back, and the same command resumes from its last checkpoint; without it the run begins anew",
        )


def can_rename(workdir: Path) -> bool:
    """Returns whether folders can be renamed in a directory, which is created: some mounts of remote stores cannot.

    Raises:
      RunDirectoryError: the directory cannot be written.
    """
    before, after = (workdir / f".probe-{os.getpid()}-{end}" for end in ("a", "b"))
    with writing(workdir, advice="choose another --workdir"):
        workdir.mkdir(parents=True, exist_ok=True)
        before.mkdir()
        try:
            before.rename(after)
        except OSError:
            before.rmdir()
            return False
        after.rmdir()
    return True


def set_aside(workdir: Location) -> Location | None:
    """Moves the files of an earlier run to earlier-1, earlier-2 … in the directory and returns that folder, or None.

    Files that no run writes stay where they are.

    Raises:
      RunDirectoryError: the directory cannot be written.
    """
    names = storage.list_names(workdir)
    written = [name for name in WRITTEN if name in names]
    if not written:
        return None
    folder = workdir / next(name for i in itertools.count(1) if (name := f"earlier-{i}") not in names)
    if isinstance(workdir, Path) and isinstance(folder, Path):
        with writing(workdir, advice="choose another --workdir"):
            folder.mkdir()
            for name in written:
                shutil.move(workdir / name, folder / name)  # copies if the file system cannot rename
    else:
        for name in written:
            storage.move(workdir / name, folder / name)
    return folder


def keep_damaged(workdir: Path, name: str, data: bytes | None = None) -> str:
    """Sets a damaged file aside: copies its content `data`, or else renames what is there. Returns the new name."""
    path, folder = workdir / name, workdir / DAMAGED
    with writing(folder):
        folder.mkdir(exist_ok=True)
        names = (f"{path.stem}-{number}{path.suffix}" for number in itertools.count(1))
        target = next(folder / each for each in names if not os.path.lexists(folder / each))
        if data is None:
            path.rename(target)
        else:
            storage.replace_local(target, data)
    return target.name


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file. A process that dies meanwhile leaves the old content or the new, never a part of it.

    Raises:
      RunDirectoryError: the disk is full or read-only.
    """
    with writing(path):
        storage.replace_local(path, text.encode())
