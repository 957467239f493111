"""The manifest of a checkpoint: its step, and size and CRC-32C of each of its files.

It is written last. A folder of a run in a bucket is a checkpoint once its manifest is there; on a disk, orbax renames
the folder after that. A file that does not match is found before anything is read: a flipped bit in an array's file
would otherwise be a wrong number, and items copied from another step a mixture.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c

from yolox_jax import storage
from yolox_jax.weights import strict_json

NAME = "manifest.json"
_FORMAT_VERSION = 1
_NOT_LISTED = ("_CHECKPOINT_METADATA", "commit_success.txt", NAME)  # orbax changes its own notes after the manifest
_THREADS = 4  # a network file system answers several requests at a time
_BLOCK = 1 << 20
_MOST_MB = 256


class ManifestError(Exception):
    """A checkpoint's files are not the ones that its manifest lists."""


def write(checkpoint: Path, step: int) -> None:
    """Writes the manifest of a checkpoint whose other files are complete.

    Raises:
      OSError: the disk is full, or a file cannot be read.
    """
    files = sorted(_files(checkpoint))
    with ThreadPoolExecutor(_THREADS) as threads:
        found = dict(zip(files, threads.map(lambda name: _describe(checkpoint / name), files), strict=True))
    text = json.dumps({"format_version": _FORMAT_VERSION, "step": step, "files": found}, indent=1)
    storage.replace_local(checkpoint / NAME, text.encode())


def verify(checkpoint: Path, items: Collection[str] | None = None) -> bool:
    """Checks the files of a checkpoint, or of the given items, against its manifest. Returns False if it has none.

    Raises:
      ManifestError: a file is missing or differs, or the manifest is damaged or of another step.
    """
    try:
        text = storage.read_regular(checkpoint / NAME, _MOST_MB)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ManifestError(f"{NAME}: {error.strerror or error}") from error
    step, files = _parse(text)
    if checkpoint.name.isdecimal() and checkpoint.name != str(step):
        raise ManifestError(f"its files are those of step {step}")
    listed = [name for name in files if items is None or name.partition("/")[0] in items]
    missing = sorted(set(items or ()) - {name.partition("/")[0] for name in listed})
    if missing:
        raise ManifestError(f"{NAME} lists no file of {missing[0]}")

    def check(name: str) -> None:
        try:
            found = _describe(checkpoint / name)
        except OSError as error:
            raise ManifestError(f"{name}: {error.strerror or error}") from error
        if found != files[name]:
            raise ManifestError(f"{name} has {_in_words(found)}, {NAME} says {_in_words(files[name])}")

    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(check, listed):
            pass
    return True


def matching(folder: Path, text: bytes) -> set[str]:
    """Returns the files in a folder that are as the manifest `text` says; none if it is damaged."""
    try:
        _, files = _parse(text)
    except ManifestError:
        return set()
    return {name for name, found in files.items() if (folder / name).is_file() and _describe(folder / name) == found}


def file_names(checkpoint: Path) -> list[str]:
    """Returns the files that the manifest of a checkpoint lists. Raises as `verify` does, or FileNotFoundError."""
    return sorted(_parse((checkpoint / NAME).read_bytes())[1])


def _files(checkpoint: Path) -> Iterator[str]:
    for path in checkpoint.rglob("*"):
        if path.is_file() and path.name not in _NOT_LISTED:
            yield path.relative_to(checkpoint).as_posix()


def _describe(file: Path) -> dict[str, Any]:
    if file.exists() and not file.is_file():  # a pipe would hang
        raise OSError("it is not a file")
    crc, num_bytes = 0, 0
    with file.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            crc = google_crc32c.extend(crc, block)
            num_bytes += len(block)
    return {"bytes": num_bytes, "crc32c": f"{crc:08x}"}


def _in_words(described: Mapping[str, Any]) -> str:
    return f"{described['bytes']} bytes with CRC-32C {described['crc32c']}"


def _parse(text: bytes) -> tuple[int, dict[str, dict[str, Any]]]:
    try:
        content = strict_json.parse(text)
        version, step, files = content["format_version"], content["step"], content["files"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ManifestError(f"{NAME} is damaged ({type(error).__name__})") from error
    if version != _FORMAT_VERSION:
        raise ManifestError(f"{NAME} has format {version}, this version of yolox_jax reads {_FORMAT_VERSION}")
    is_whole = type(step) is int and isinstance(files, dict) and all(_is_described(each) for each in files.values())
    if not is_whole or not files or not all(_is_inside(name) for name in files):
        raise ManifestError(f"{NAME} is damaged")
    return step, files


def _is_described(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"bytes", "crc32c"}:
        return False
    return type(value["bytes"]) is int and isinstance(value["crc32c"], str)


def _is_inside(name: str) -> bool:
    """Returns whether a name is a file below the checkpoint's folder: a manifest from elsewhere may say anything."""
    return not name.startswith("/") and "\\" not in name and "\0" not in name and ".." not in name.split("/")
