"""Keeps a local copy of a folder in a bucket: what is whole is reused, what changed is fetched again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from yolox_jax.errors import UserError, writing
from yolox_jax.locks import locked
from yolox_jax.storage.client import Patience
from yolox_jax.storage.files import Entry, entry, in_parallel, list_files, replace_local
from yolox_jax.storage.locations import BucketPath
from yolox_jax.storage.progress import Progress
from yolox_jax.storage.transfers import download

_RECORD = ".copied.jsonl"  # a line per file that is whole: its name, size and version in the bucket
_FIRST_S, _LATER_S = 20, 300  # of patience: for the first answer, and once the copy has begun
_THREADS = 32  # small files wait for the network, not for each other


def copy_folder(
    folder: BucketPath,
    target: Path,
    is_wanted: Callable[[str], bool] = lambda name: True,
    *,
    advice: str = "free some space",
    log: Callable[[str], object] = print,
) -> None:
    """Copies the files below a folder of a bucket that `is_wanted` takes by their relative names, in parallel.

    A file that is there is reused if its size and version are those of the bucket; one that the bucket no longer has is
    removed. A file has its name only when it is whole, and an interrupted copy resumes. Processes of one machine that
    want the same folder wait for each other.

    Raises:
      NotFoundError, StorageError, UnreachableError: the bucket cannot be read.
      UserError: the disk has too little space (`advice` says what to do), or cannot be written.
    """
    with writing(target, advice):
        target.mkdir(parents=True, exist_ok=True)
        on_busy = lambda: log(f"another process is copying {folder}; waiting for it")
        with locked(target / ".copy.lock", on_busy):
            _copy(folder, target, is_wanted, advice, log)


def copy_file(
    path: BucketPath, target: Path, *, advice: str = "free some space", log: Callable[[str], object] = print
) -> None:
    """As `copy_folder`, for one file, whose copy is `target`."""
    with writing(target.parent, advice):
        target.parent.mkdir(parents=True, exist_ok=True)
        on_busy = lambda: log(f"another process is copying {path}; waiting for it")
        with locked(target.with_name(f".{target.name}.lock"), on_busy):
            record = target.with_name(f".{target.name}.copied.jsonl")
            listed = entry(path, Patience(_FIRST_S, log))
            if _read_record(record).get(target.name) == listed and _size(target) == listed.size:
                return
            _check_space(path, target.parent, listed.size, advice)
            with Progress(str(path), log, listed.size) as progress:
                found = download(path, target, progress.add, Patience(_LATER_S), known=listed)
            _write_record(record, {target.name: found})


def _copy(
    folder: BucketPath,
    target: Path,
    is_wanted: Callable[[str], bool],
    advice: str,
    log: Callable[[str], object],
) -> None:
    found_there = list_files(folder, Patience(_FIRST_S, log))
    listed = {name: _checked(folder, name, found) for name, found in found_there.items()}
    record = _read_record(target / _RECORD)
    for name in set(record) - set(listed):
        (target / name).unlink(missing_ok=True)
    whole = {name for name in listed if record.get(name) == listed[name] and _size(target / name) == listed[name].size}
    missing = [name for name in listed if name not in whole and is_wanted(name)]
    _write_record(target / _RECORD, {name: listed[name] for name in whole})
    if not missing:
        return
    num_bytes = sum(listed[name].size for name in missing)
    in_part = sum(_size(target / f"{name}.part") or 0 for name in missing)
    _check_space(folder, target, num_bytes - in_part, advice)
    log(f"copying {len(missing)} files, {_gb(num_bytes)}, from {folder} to {target}")
    with (target / _RECORD).open("a") as lines, Progress(folder.name, log, num_bytes) as progress:

        def fetch(name: str) -> None:
            found = download(folder / name, target / name, progress.add, Patience(_LATER_S), known=listed[name])
            lines.write(_line(name, found))  # one call: threads do not mix their lines
            lines.flush()

        in_parallel(fetch, missing, _THREADS)


def _check_space(path: BucketPath, folder: Path, num_bytes: int, advice: str) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise UserError(
            f"the copy of {path} needs {_gb(num_bytes)}, but the disk of {folder} has {_gb(free)} free", advice
        )


def _checked(folder: BucketPath, name: str, found: Entry) -> Entry:
    """Raises a UserError for a name that would lead out of the copy's folder."""
    if ".." in PurePosixPath(name).parts or "\\" in name:
        raise UserError(f"{folder} has a file {name!r}", "rename it there")
    return found


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _line(name: str, found: Entry) -> str:
    return json.dumps([name, *found]) + "\n"


def _read_record(file: Path) -> dict[str, Entry]:
    """Reads the record without a line that a killed process left unfinished."""
    record = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            name, size, version = json.loads(line)
        except (ValueError, TypeError):
            continue
        record[name] = Entry(size, version)
    return record


def _write_record(file: Path, record: dict[str, Entry]) -> None:
    replace_local(file, "".join(_line(name, found) for name, found in record.items()).encode())


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
