"""Checkpoints on disk: the only user of orbax.

A run directory holds checkpoints/<step>/ with three items: `ema`, the averaged weights, which is all that evaluation
reads; `train`, the rest of the state; and `meta`, a json of what the arrays cannot say.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from yolox_jax.training.state import TrainState

_FOLDER = "checkpoints"
_FORMAT_VERSION = 2  # 2: with the position in the data


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself."""

    model: str
    class_names: tuple[str, ...]
    step: int
    AP: float
    config: dict[str, Any]
    data_state: dict[str, int]  # where the training data goes on: TrainLoader.get_state

    def to_json(self) -> dict[str, Any]:
        return {"format_version": _FORMAT_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any], path: Path) -> "Meta":
        content = dict(content)
        version = content.pop("format_version", None)
        if version != _FORMAT_VERSION:
            raise ValueError(
                f"{path} has checkpoint format {version}, this version of yolox_jax reads {_FORMAT_VERSION}: "
                "open it with the version that wrote it"
            )
        content["class_names"] = tuple(content["class_names"])
        return cls(**content)


class Checkpoints:
    """The checkpoints of one run: written in the background, the last few and the best by AP kept."""

    def __init__(self, workdir: Path, keep_last: int = 2):
        policies = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep_last),
                checkpoint_managers.BestN(get_metric_fn=lambda metrics: metrics["AP"], n=1),
            ]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=policies)
        self._manager = ocp.CheckpointManager((workdir / _FOLDER).absolute(), options=options)

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, meta: Meta) -> None:
        """Starts to write; the arrays are copied before this returns, so the state may be donated."""
        items = ocp.args.Composite(
            ema=ocp.args.StandardSave(state.ema),
            train=ocp.args.StandardSave(_without_ema(state)),
            meta=ocp.args.JsonSave(meta.to_json()),
        )
        self._manager.save(meta.step, args=items, metrics={"AP": meta.AP})

    def read_meta(self, step: int) -> Meta:
        """What the checkpoint of a step says of itself."""
        return read_meta(Path(self._manager.directory) / str(step))

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state of a step, laid out on the devices as `like` is."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            ema=ocp.args.StandardRestore(abstract.ema),
            train=ocp.args.StandardRestore(_without_ema(abstract)),
        )
        restored = self._manager.restore(step, args=items)
        return TrainState(ema=restored["ema"], **restored["train"])

    def close(self) -> None:
        """Waits until all is written."""
        self._manager.close()


def find(path: Path) -> Path | None:
    """The checkpoint a path means: itself, or the newest one of a run directory; None where it is neither."""
    if (path / "ema").is_dir() and (path / "meta").is_dir():
        return path
    for folder in (path / _FOLDER, path):
        steps = [child for child in folder.glob("*") if child.name.isdigit()] if folder.is_dir() else []
        if steps:
            return max(steps, key=lambda child: int(child.name))
    return None


def read_meta(checkpoint: Path) -> Meta:
    """What a checkpoint says of itself."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return Meta.from_json(reader.restore((checkpoint / "meta").absolute()), checkpoint)


def read_ema(checkpoint: Path, abstract_variables: Any) -> Any:
    """The averaged weights {"params", "batch_stats"} of a checkpoint, on one device of this process."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract_variables)
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((checkpoint / "ema").absolute(), like)


def _without_ema(state: TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "ema"}
