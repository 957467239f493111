"""Lists the checkpoints of a run, and reads their metadata and weights.

A run directory holds checkpoints/<step>/ with four items: `ema`, the EMA weights, which evaluation reads; `raw`, the
weights that the optimizer updates; `train`, the rest of the state; and `meta`, a JSON with everything that is not an
array. A run in float16 has a fifth, `loss_scale`. Beside the items, the manifest has the hash of every file
(manifest.py). Beside the steps, ap.json has the AP of those that were evaluated: a state is saved before it is
evaluated, so that a crash during evaluation loses nothing. training/checkpoints.py writes them; meta.py and aps.py read
and check the two JSON files.
"""

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from yolox_jax import storage
from yolox_jax.storage import BucketPath, Location
from yolox_jax.weights import bucket_copy, manifest, meta
from yolox_jax.weights.aps import best_step, read_aps
from yolox_jax.weights.meta import CheckpointError, Meta, OtherFormatError

logger = logging.getLogger("yolox_jax.weights")

FOLDER = "checkpoints"
_ITEMS = ("ema", "raw", "train", "meta")
# Why a checkpoint was renamed to <step>.<kind>-1, by kind.
SET_ASIDE = {"unreadable": "cannot be read", "ahead": "the other seeds lacked this step"}


@dataclasses.dataclass(frozen=True)
class Listed:
    """A checkpoint's properties that are known without reading its arrays."""

    step: int
    ap: float | None  # None if it was not evaluated
    num_bytes: int
    mesh: str  # of the run that wrote it: devices, or processes x devices per process; empty if unknown
    condition: str  # "complete" or "verified", or what is wrong
    is_damaged: bool = False  # neither half-written nor set aside, and cannot be read


def list_checkpoints(run: Location, verify: bool = False) -> list[Listed]:
    """Lists all checkpoints of a run directory, half-written ones included, oldest first.

    With `verify`, reads every file and compares it with the manifest.
    """
    folder = run / FOLDER
    sizes = {name: found.size for name, found in storage.list_files(folder).items()}
    try:
        aps = read_aps(folder)
    except CheckpointError as error:
        logger.warning("%s: no AP is shown", error.what)
        aps = {}
    with contextlib.ExitStack() as opened:
        local = folder
        if isinstance(local, BucketPath):
            local = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            names = sizes if verify else [name for name in sizes if name.split("/")[1:2] in (["meta"], [manifest.NAME])]
            storage.in_parallel(lambda name: bucket_copy.copy_file(folder / name, local / name), names)
        listed = []
        for name in {*(name.partition("/")[0] for name in sizes if "/" in name), *storage.list_names(folder)}:
            step, _, rest = name.partition(".")
            if bucket_copy.is_step(step):
                num_bytes = sum(size for file, size in sizes.items() if file.startswith(f"{name}/"))
                described = _describe(folder / name, local / name, rest, verify)
                listed.append(Listed(int(step), None if rest else aps.get(int(step)), num_bytes, *described))
    return sorted(listed, key=lambda each: (each.step, each.condition))


def _describe(path: Location, local: Path, rest: str, verify: bool) -> tuple[str, str, bool]:
    """Mesh, condition and whether it is damaged, of a checkpoint whose folder's name ends in `rest` after the step."""
    if (kind := rest.partition("-")[0]) in SET_ASIDE:
        return "", f"set aside: {SET_ASIDE[kind]}", False
    if rest or (path != local and not (local / "meta").is_dir()):  # orbax writes to <step>.orbax-checkpoint-tmp…
        return "", "half-written", False
    mesh = ""
    try:
        found = read_meta(local)
        mesh = str(found.num_devices)
        if found.num_processes > 1:
            mesh = f"{found.num_processes}x{found.num_devices // found.num_processes}"
        if not verify:
            return mesh, "complete", False
        with _reading(local):
            return mesh, "verified" if manifest.verify(local) else "complete, but has no manifest", False
    except OtherFormatError as error:
        return mesh, error.what, False
    except CheckpointError as error:
        return mesh, f"cannot be read: {first_line(error.__cause__ or error)}", True


def find(path: Location) -> Path | None:
    """Returns the checkpoint that `locate` finds. One in a bucket is copied to the disk, and the copy is returned."""
    found = locate(path)
    return bucket_copy.cached(found, storage.list_files(found)) if isinstance(found, BucketPath) else found


def locate(path: Location) -> Location | None:
    """Returns the checkpoint that a path names: the path itself, or the newest one of a run directory; None otherwise.

    RUN/last names the newest one too, RUN/best the one with the highest AP, unless there is such a folder.

    Raises:
      CheckpointError: RUN/best of a run without any evaluation.
    """
    which = "last"
    if path.name in ("best", "last") and not storage.exists(path):
        path, which = path.parent, path.name
    return _locate_in_bucket(path, which) if isinstance(path, BucketPath) else _locate_on_disk(path, which)


def _locate_on_disk(path: Path, which: str) -> Path | None:
    if (path / "ema").is_dir() and (path / "meta").is_dir():
        return path
    for folder in (path / FOLDER, path):
        if steps := complete_steps(folder):
            return folder / str(_choose(folder, steps, which))
    return None


def _locate_in_bucket(path: BucketPath, which: str) -> BucketPath | None:
    files = storage.list_files(path)
    if any(name.startswith("meta/") for name in files):
        return path
    for folder, prefix in ((path / FOLDER, f"{FOLDER}/"), (path, "")):
        if steps := bucket_copy.steps(files, prefix):
            return folder / str(_choose(folder, steps, which))
    return None


def _choose(folder: Location, steps: Collection[int], which: str) -> int:
    """Returns the "last" or the "best" of the steps in a folder of checkpoints."""
    if which == "last":
        return max(steps)
    best = best_step(read_aps(folder), steps)
    if best is None:
        run = folder.parent
        raise CheckpointError(f"no checkpoint of {run} was evaluated, so none is the best", f"{run}/last is the newest")
    return best


def complete_steps(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder, in no particular order."""
    children = folder.iterdir() if folder.is_dir() else []
    steps = (each for each in children if bucket_copy.is_step(each.name))
    return [int(each.name) for each in steps if any((each / item).is_dir() for item in _ITEMS)]


def read_meta(checkpoint: Path) -> Meta:
    """Reads the metadata of a checkpoint.

    Raises:
      CheckpointError: the checkpoint is damaged, or of another version of this package.
    """
    with _reading(checkpoint):
        manifest.verify(checkpoint, items=("meta",))
        return meta.read(checkpoint)


def verify(checkpoint: Path, items: Collection[str] | None = None) -> None:
    """Checks the files of a checkpoint, or of some items, against its manifest. Warns if an older version wrote none.

    Raises:
      CheckpointError: a file is missing, damaged, or that of another step.
    """
    with _reading(checkpoint):
        if not manifest.verify(checkpoint, items):
            logger.warning("%s has no manifest, as those of older versions: its files are not verified", checkpoint)


def read_variables(checkpoint: Path, abstract_variables: Any, item: str = "ema") -> Any:
    """Reads {"params", "batch_stats"} of a checkpoint as host arrays: the EMA weights, or those of item "raw".

    Raises:
      CheckpointError: the checkpoint is damaged, or has other arrays than its meta says.
    """
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), abstract_variables)
    verify(checkpoint, items=(item,))
    with _reading(checkpoint), explained({item: like}, checkpoint), ocp.StandardCheckpointer() as reader:
        found = reader.restore((checkpoint / item).absolute(), like)
        if _shapes(found) != _shapes(like):  # orbax gives host arrays any shape
            raise ValueError("an array has another shape")
        return found


@contextlib.contextmanager
def explained(items: Mapping[str, Any], checkpoint: Path) -> Iterator[None]:
    """Names the arrays that differ if the block cannot restore `items`: orbax's message has a page of them."""
    try:
        yield
    except Exception as error:  # orbax and its libraries raise all kinds
        with ocp.StandardCheckpointer() as reader:
            for name, item in items.items():
                there = reader.metadata((checkpoint / name).absolute())
                if what := _difference(_shapes(getattr(there, "item_metadata", there).tree), _shapes(item)):
                    raise ValueError(f"{name} has other arrays than {meta.FILE} says: {what}") from error
        raise


def _difference(there: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> str:
    """Counts the arrays that differ, and names the first of each kind; empty if there are none."""
    differing = {
        "missing": [name for name in wanted if name not in there],
        "unknown": [name for name in there if name not in wanted],
        "of another shape": [name for name in wanted if there.get(name, wanted[name]) != wanted[name]],
    }
    return ", ".join(f"{len(names)} {kind} ({names[0]})" for kind, names in differing.items() if names)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a state or of orbax's metadata, which has lists for tuples, by its path."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


@contextlib.contextmanager
def _reading(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except OtherFormatError as error:
        raise OtherFormatError(f"{checkpoint} cannot be read: {error.what}", error.advice) from error
    except CheckpointError:
        raise
    except Exception as error:  # orbax and its libraries raise all kinds
        raise CheckpointError(
            f"{checkpoint} cannot be read ({first_line(error)})",
            f"choose another one: python -m yolox_jax.tools.checkpoints {checkpoint.parent.parent} lists them",
        ) from error


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, at most 200 characters, or its type if the message is empty."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
