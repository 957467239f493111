"""Reads checkpoints: which there are, what each says of itself, and its weights.

A run directory holds checkpoints/<step>/ with four items: `ema`, the EMA weights, which are all that evaluation reads;
`raw`, the weights that the optimizer updates; `train`, the rest of the state; and `meta`, a json with everything that
is not an array. Beside them, ap.json has the AP of the steps that were evaluated: a state is saved before it is
evaluated, so that a crash in between loses nothing. training/checkpoints.py writes them.
"""

import dataclasses
import importlib.metadata
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

FOLDER = "checkpoints"
_ITEMS = ("ema", "raw", "train", "meta")
_FORMAT_VERSION = 3  # 3: raw weights as an item of their own, the data set's fingerprint, the mesh
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "opencv-python-headless")


class CheckpointError(RuntimeError):
    """Checkpoints could not be written or read. Says which, and what is left."""


class OtherFormatError(CheckpointError):
    """A checkpoint of another version of this program: sound, but not to be read here."""


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself."""

    model: str
    class_names: tuple[str, ...]
    step: int  # steps done
    config: dict[str, Any]
    data_state: dict[str, int]  # where the training data goes on: TrainLoader.get_state
    num_devices: int = 1  # it was written on, of all processes
    num_processes: int = 1
    packages: dict[str, str] = dataclasses.field(default_factory=lambda: _package_versions())

    def to_json(self) -> dict[str, Any]:
        return {"format_version": _FORMAT_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any], path: Path) -> "Meta":
        content = dict(content)
        version = content.pop("format_version", None)
        if version != _FORMAT_VERSION:
            raise OtherFormatError(
                f"{path} has checkpoint format {version}, this version of yolox_jax reads {_FORMAT_VERSION}: "
                "open it with the version that wrote it"
            )
        content["class_names"] = tuple(content["class_names"])
        return cls(**content)


def best_step(aps: Mapping[int, float], steps: Collection[int]) -> int | None:
    """Of `steps`, the one of the highest AP, the latest of equal ones; None where none was evaluated."""
    return max((step for step in steps if step in aps), key=lambda step: (aps[step], step), default=None)


@dataclasses.dataclass(frozen=True)
class Listed:
    """What can be said of a checkpoint without reading its arrays."""

    step: int
    ap: float | None  # None where it was not evaluated
    num_bytes: int
    mesh: str  # that wrote it: devices, or processes×devices of each; empty where it does not say
    condition: str  # "complete", or what is wrong


def list_checkpoints(workdir: Path) -> list[Listed]:
    """All that a run directory holds, the half-written too, the oldest first."""
    folder, listed = workdir / FOLDER, []
    aps = read_aps(folder)
    for path in folder.glob("*") if folder.is_dir() else []:
        step, _, rest = path.name.partition(".")
        if not step.isdigit():
            continue
        mesh, condition = "", "complete"
        if rest.startswith("unreadable"):
            condition = "set aside: could not be read"
        elif rest:  # orbax writes to <step>.orbax-checkpoint-tmp… and renames it
            condition = "half-written"
        else:
            try:
                meta = read_meta(path)
                mesh = str(meta.num_devices)
                if meta.num_processes > 1:
                    mesh = f"{meta.num_processes}x{meta.num_devices // meta.num_processes}"
            except Exception as error:  # noqa: BLE001  (orbax and what is below it raise all kinds)
                condition = f"cannot be read: {first_line(error)}"
        num_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        listed.append(Listed(int(step), None if rest else aps.get(int(step)), num_bytes, mesh, condition))
    return sorted(listed, key=lambda each: (each.step, each.condition))


def find(path: Path) -> Path | None:
    """The checkpoint a path means: itself, or the newest one of a run directory; None where it is neither.

    RUN/last is the newest as well, RUN/best the one of the highest AP. Raises CheckpointError where none has an AP.
    """
    if path.name in ("best", "last") and not path.exists():
        newest = find(path.parent)
        return newest if newest is None or path.name == "last" else _best(newest.parent)
    if (path / "ema").is_dir() and (path / "meta").is_dir():
        return path
    for folder in (path / FOLDER, path):
        if steps := complete_steps(folder):
            return folder / str(max(steps))
    return None


def _best(folder: Path) -> Path:
    best = best_step(read_aps(folder), complete_steps(folder))
    if best is None:
        run = folder.parent
        raise CheckpointError(f"no checkpoint of {run} was evaluated, so none is its best: {run}/last is the newest")
    return folder / str(best)


def complete_steps(folder: Path) -> list[int]:
    children = folder.iterdir() if folder.is_dir() else []
    return [int(each.name) for each in children if each.name.isdigit() and any((each / x).is_dir() for x in _ITEMS)]


def read_meta(checkpoint: Path) -> Meta:
    """What a checkpoint says of itself."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return Meta.from_json(reader.restore((checkpoint / "meta").absolute()), checkpoint)


def read_variables(checkpoint: Path, abstract_variables: Any, item: str = "ema") -> Any:
    """The weights {"params", "batch_stats"} of a checkpoint as host arrays: the averaged ones, or item "raw"."""
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), abstract_variables)
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((checkpoint / item).absolute(), like)


def read_aps(directory: Path) -> dict[int, float]:
    """The AP of each evaluated step of a folder of checkpoints."""
    file = directory / "ap.json"
    return {int(step): ap for step, ap in json.loads(file.read_text()).items()} if file.exists() else {}


def _package_versions() -> dict[str, str]:
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # cv2 comes from wheels of several names
        return "unknown"


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
