"""Everything that a run builds from its config before it reads a checkpoint."""

import dataclasses
from typing import Any, Literal

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from yolox_jax.augment.multiscale import MultiscaleConfig
from yolox_jax.cli import from_config
from yolox_jax.data.prefetch import Shard
from yolox_jax.data.sources.open import check_classes
from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.detection.anchors import check_size
from yolox_jax.evaluation import evaluate
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.mesh import check_batch_size, make_mesh
from yolox_jax.models import yolox
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.open_directory import RunDirectory
from yolox_jax.training.save_due import SaveDue
from yolox_jax.training.schedule import EvaluationDue, Schedule
from yolox_jax.training.step import StepConfig
from yolox_jax.types import Source
from yolox_jax.weights import download

ProgramKey = tuple[int, int] | Literal["predict"]  # the image size of steps, or evaluation


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that stays the same from the first step to the last."""

    config: ConfigDict
    directory: RunDirectory
    mesh: Mesh
    size_hw: tuple[int, int]  # the input size; multi-scale changes it from step to step
    train_source: Source
    val_source: Source
    schedule: Schedule
    evaluation_due: EvaluationDue
    multiscale: MultiscaleConfig | None
    loader: TrainLoader
    model: yolox.YOLOX
    optimizer: Any  # an optax.GradientTransformation
    step_config: StepConfig
    detect_config: DetectConfig
    checkpoints: Checkpoints
    save_due: SaveDue

    def size_at(self, step: int) -> tuple[int, int]:
        """Returns the image size of a step."""
        return self.multiscale.size_at(step, self.size_hw, self.config.seed) if self.multiscale else self.size_hw

    def lacks_evaluation(self, step: int) -> bool:
        """True if the run ended after saving `step` and before the evaluation that was due then."""
        return step > 0 and self.evaluation_due(step - 1) and step not in self.checkpoints.aps()

    def uses_from(self, first_step: int, evaluates_first: bool) -> list[ProgramKey]:
        """Returns the image sizes of all steps from `first_step` on and "predict", in the order of their first use."""
        evaluation = first_step - 1 if evaluates_first else self.evaluation_due.next_from(first_step)
        before, all_sizes = (self._sizes(first_step, end) for end in (evaluation + 1, self.schedule.total_steps))
        return list(dict.fromkeys([*before, "predict", *all_sizes]))

    def _sizes(self, first_step: int, end_step: int) -> list[tuple[int, int]]:
        if self.multiscale:
            return self.multiscale.first_uses(first_step, end_step, self.size_hw, self.config.seed)
        return [self.size_hw] if first_step < end_step else []


def prepare(
    config: ConfigDict,
    directory: RunDirectory,
    mesh: Mesh | None = None,
    sources: tuple[Source, Source] | None = None,
) -> Run:
    """Checks the config, opens the data, and builds everything that does not depend on a checkpoint.

    By default the mesh is that of all devices; `sources` are the two splits, if they are open already.
    """
    download.local_file(config.init_from)  # a bucket that refuses is known before the data set is copied from one
    mesh = mesh or make_mesh()
    check_batch_size("batch_size", config.batch_size, mesh, config.accumulate_steps)
    check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    size_hw = check_size(config.input_size)
    evaluate.check_metric(config.eval.metric)

    train_source, val_source = sources or (
        from_config.open_source(config, "train", to_train=True),
        from_config.open_source(config, "val"),
    )
    class_names = train_source.class_names
    check_classes(config.num_classes, class_names, val_source.class_names)

    schedule = from_config.schedule(config, len(train_source))
    shard, saves = Shard(jax.process_index(), jax.process_count()), config.checkpoint
    return Run(
        config,
        directory,
        mesh,
        size_hw,
        train_source,
        val_source,
        schedule,
        evaluation_due=EvaluationDue(schedule, config.eval.every_epochs),
        multiscale=from_config.multiscale(config, size_hw, schedule),
        loader=from_config.train_loader(config, train_source, schedule, shard),
        model=from_config.training_model(config, len(class_names), mesh, schedule.total_steps),
        optimizer=from_config.optimizer(config),
        step_config=from_config.step_config(config, schedule),
        detect_config=from_config.whole_image_detect_config(config),
        checkpoints=Checkpoints(directory.path, saves.keep_last, directory.address, directory.slices),
        save_due=SaveDue(saves.every_steps, saves.every_minutes, ask_every=config.log_every_steps),
    )
