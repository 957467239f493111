"""Copies checkpoints from a bucket to the disk, where everything that reads them finds ordinary files.

Nothing in a bucket is renamed in one step. So the order in which a checkpoint's files are written says whether it is
whole: first the arrays, then `meta`, and the manifest last. They are removed the other way round. A folder without
`meta` is half-written or half-removed, and counts as absent.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from yolox_jax import storage
from yolox_jax.cache_folder import cache_folder
from yolox_jax.errors import writing
from yolox_jax.locks import locked
from yolox_jax.storage import BucketPath, Location, Patience
from yolox_jax.weights import manifest

PATIENCE = Patience(300)
MOST_STEPS = 2**31 - 1  # the state counts them in int32


def local_name(address: Location) -> str:
    """Returns a folder's name that is readable, and differs for different addresses."""
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", address.name)
    return f"{readable}-{hashlib.sha256(str(address).encode()).hexdigest()[:12]}"


def steps(names: Iterable[str], folder: str = "checkpoints/") -> dict[int, list[str]]:
    """Returns the files of each whole checkpoint, relative to its own folder, from all file names of a run."""
    found = step_folders(names, folder)
    return {step: files for step, files in found.items() if any(file.startswith("meta/") for file in files)}


def step_folders(names: Iterable[str], folder: str = "checkpoints/") -> dict[int, list[str]]:
    """Returns the files of each checkpoint, half-written ones included, as `steps` does."""
    found: dict[int, list[str]] = {}
    for name in names:
        step, slash, rest = name.removeprefix(folder).partition("/")
        if name.startswith(folder) and slash and is_step(step):
            found.setdefault(int(step), []).append(rest)
    return found


def is_step(name: str) -> bool:
    """True for the name of a checkpoint's folder; false for "²" and "007", which are numbers to Python too."""
    is_short = len(name) <= len(str(MOST_STEPS))  # Python refuses to read a number of thousands of digits
    return is_short and name.isascii() and name.isdigit() and str(int(name)) == name and int(name) <= MOST_STEPS


def in_order(files: Iterable[str]) -> list[list[str]]:
    """Sorts a checkpoint's files into those written first, second and last."""
    ordered: list[list[str]] = [[], [], []]
    for file in sorted(files):
        ordered[2 if file == manifest.NAME else 1 if file.startswith("meta/") else 0].append(file)
    return ordered


def fetch(source: Location, files: Iterable[str], target: Path, patience: Patience = PATIENCE) -> None:
    """Makes `target` a copy of a checkpoint. Files that are there already and match the manifest stay."""
    wanted = set(files)
    have = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    text = storage.read_bytes(source / manifest.NAME, patience) if manifest.NAME in wanted else b""
    for name in have - wanted:
        (target / name).unlink()
    whole = manifest.matching(target, text) if text else set()
    copied = sorted(wanted - whole - {manifest.NAME})
    storage.in_parallel(lambda name: copy_file(source / name, target / name, patience), copied)
    if text:
        (target / manifest.NAME).write_bytes(text)


def copy_file(source: Location, target: Path, patience: Patience = PATIENCE) -> None:
    """Copies one file to the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, BucketPath):
        storage.download(source, target, patience=patience)
    else:
        shutil.copyfile(source, target)


def copy_out(source: Path, target: Location, patience: Patience = PATIENCE) -> None:
    """Copies one file from the disk."""
    if isinstance(target, BucketPath):
        storage.upload(source, target, patience)
    else:
        storage.write_bytes(target, source.read_bytes(), patience)


def cached(checkpoint: BucketPath, files: Iterable[str]) -> Path:
    """Returns a local copy of a checkpoint, below the cache folder. Removes the copies of others that are gone."""
    home = cache_folder() / "copies" / local_name(checkpoint.parent)

    def report() -> None:
        print(f"another program copies from {checkpoint.parent}: waiting for it", flush=True)

    with writing(home, advice="free some space, or set YOLOX_JAX_HOME to a folder elsewhere"):
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / ".lock", on_busy=report):
            kept = storage.list_names(checkpoint.parent, PATIENCE)
            for path in home.iterdir():
                if path.is_dir() and path.name not in kept:
                    shutil.rmtree(path)
            fetch(checkpoint, files, home / checkpoint.name)
    return home / checkpoint.name
