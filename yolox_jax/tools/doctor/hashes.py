"""Writes and checks the SHA-256 of every file of a data set: what no decoder can know, that a pixel has changed.

The record is one json, {"sha256": {path: hash}}; paths are relative to config.data.root, with "/" between folders.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from yolox_jax import storage
from yolox_jax.errors import UserError
from yolox_jax.storage import BucketPath
from yolox_jax.tools.doctor.findings import Finding
from yolox_jax.weights import strict_json

Hashes = dict[str, str]  # by path
Progress = Callable[[int, int], None]  # files hashed, all files

_FIELD = "sha256"
_HASH = re.compile("[0-9a-f]{64}")
_SPLIT = "the data set"  # in findings
_GIVE = "give a file that --write-hashes wrote"


def root_of(data: Mapping[str, Any]) -> Path:
    """Returns config.data.root as a local folder.

    Raises:
      UserError: the data set has no files there.
    """
    if data.get("also"):
        raise UserError("config.data.also names more data sets", "hash one data set at a time")
    root = storage.resolve(str(data.get("root") or "."))
    if isinstance(root, BucketPath):
        raise UserError(f"config.data.root is {root}", "hashes are of a local folder: give the copy in data.local_dir")
    if data.get("kind") == "shapes" or not root.is_dir():
        raise UserError(f"there are no files to hash in config.data.root, {root}", "give the folder of a data set")
    return root.absolute()


def compute(
    root: Path, also: Iterable[str | Path], record: Path, threads: int, progress: Progress | None = None
) -> Hashes:
    """Hashes every file below `root`, each folder once, and those of the files `also` that exist anywhere else.

    Hidden files, whose names begin with a dot, are left out, and so is `record`, to which the hashes will be written.

    Raises:
      UserError: a file cannot be read.
    """
    elsewhere = {_relative(path, root) for path in also if os.path.isabs(path) and os.path.isfile(path)}
    paths = sorted({*_files_below(root), *elsewhere} - {_relative(record, root)})
    hashes: Hashes = {}
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for path, digest in zip(paths, pool.map(lambda path: _hash(root / path), paths), strict=True):
            if isinstance(digest, OSError):
                raise UserError(f"{root / path} cannot be read ({digest.strerror or digest})", "check the file")
            hashes[path] = digest
            if progress is not None:
                progress(len(hashes), len(paths))
    return hashes


def to_json(hashes: Hashes) -> str:
    return json.dumps({_FIELD: hashes}, indent=0) + "\n"


def read(file: str | Path) -> Hashes:
    """Reads what `to_json` wrote.

    Raises:
      UserError: the file cannot be read, is in a bucket, or is no record of hashes.
    """
    file = storage.local_path(file)
    try:
        content = strict_json.parse(file.read_bytes(), any_text=True)  # a file may have any name
        hashes = content[_FIELD]
        if not all(isinstance(each, str) and _HASH.fullmatch(each) for each in hashes.values()):
            raise ValueError("a hash is not 64 hexadecimal digits")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error})", _GIVE) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} is no record of hashes ({error})", _GIVE) from error
    return dict(hashes)


def check(
    expected: Hashes, root: Path, record: str | Path, threads: int, progress: Progress | None = None
) -> list[Finding]:
    """Compares the files with a record: one that is missing or has changed is an error, one more is a warning."""
    findings = []
    paths = list(expected)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for number, (path, digest) in enumerate(
            zip(paths, pool.map(lambda path: _hash(root / path), paths), strict=True), 1
        ):
            if isinstance(digest, FileNotFoundError | NotADirectoryError):
                findings.append(_finding("missing-file", root / path, "it is not there", "copy it again"))
            elif isinstance(digest, OSError):
                what = f"it cannot be read ({digest.strerror or digest})"
                findings.append(_finding("changed-file", root / path, what, "copy it again"))
            elif digest != expected[path]:
                what = "its SHA-256 is another one"
                findings.append(_finding("changed-file", root / path, what, "copy it again, or write the hashes anew"))
            if progress is not None:
                progress(number, len(paths))
    extra = set(_files_below(root)) - set(paths) - {_relative(record, root)}
    for path in sorted(extra):
        what, advice = f"{record} does not list it", "delete it, or write the hashes anew"
        findings.append(Finding("warning", "extra-file", _SPLIT, str(root / path), "", what, advice))
    return findings


def _finding(code: str, path: Path, what: str, advice: str) -> Finding:
    return Finding("error", code, _SPLIT, str(path), "", what, advice)


def _relative(path: str | Path, root: Path) -> str:
    return Path(os.path.relpath(os.path.abspath(path), root)).as_posix()


def _files_below(root: Path) -> Iterator[str]:
    """Yields the path of each regular file; a link to a folder is followed, unless that has been seen."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield _relative(path, root)


def _hash(path: Path) -> str | OSError:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return OSError("it is not a file")
        return storage.sha256(path)
    except OSError as error:
        return error
