"""A training step as two programs on a CPU: the gradients, one for each image size, and the update, for all sizes.

XLA:CPU compiles a program mostly on one core, and needs a third of a step's time for the hundreds of small kernels of
the update (benchmarks/NOTES.md). As a program of its own, the update is compiled beside the gradients, and once for all
sizes of multi-scale training. The numbers of the schedule are the update's alone, so a run of another length finds the
gradients in the compilation cache.
"""

import contextlib
import dataclasses
import functools
import gc
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from yolox_jax.detection import losses
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.mesh import AXIS, WHOLE, place, placed_shapes, platform_of, shapes_of
from yolox_jax.models.yolox import YOLOX
from yolox_jax.training import step
from yolox_jax.training.compilation import Compile
from yolox_jax.training.parallel import compile_lowered
from yolox_jax.training.state import TrainState
from yolox_jax.training.step import StepConfig, Totals
from yolox_jax.types import Batch, Predictions

_one_at_a_time = threading.Lock()
_OBJECTS = 50_000  # new ones before Python looks for garbage; of what tracing makes, nearly all is kept


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    """Traces one program at a time, since two delay each other, and with little garbage collection in this process."""
    with _one_at_a_time:
        young, *older = gc.get_threshold()
        gc.set_threshold(young and max(young, _OBJECTS), *older)  # 0: it is off
        try:
            yield
        finally:
            gc.set_threshold(young, *older)


@dataclasses.dataclass(frozen=True)
class StepInHalves:
    """A compiled step at one image size: (state, batch) -> (state, metrics). The state is donated."""

    sum_gradients: jax.stages.Compiled
    update: jax.stages.Compiled
    no_aug_step: jax.Array

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, losses.Metrics]:
        return self.update(state, self.sum_gradients(_read_by_gradients(state), batch, self.no_aug_step))

    def memory_analysis(self) -> Any:
        """That of the gradients, whose temporaries are by far the larger."""
        return self.sum_gradients.memory_analysis()


@dataclasses.dataclass(frozen=True)
class Halves:
    """Traces the halves of `train_step`, and returns what compiles them. `state_specs` as in parallel.map_step."""

    model: YOLOX
    optimizer: optax.GradientTransformation
    config: StepConfig
    mesh: Mesh
    state_specs: Any = WHOLE

    def trace_gradients(self, state: TrainState, batch: Batch, size_hw: tuple[int, int] | None) -> Compile:
        """Traces the first half for a state on the mesh, a batch, and an image size."""
        with _tracing():
            half = functools.partial(step.sum_gradients, model=self.model, config=self.config, size_hw=size_hw)
            mapped = jax.shard_map(
                lambda state, batch, no_aug_step: half(state, batch, no_aug_step=no_aug_step),
                mesh=self.mesh,
                in_specs=(WHOLE, P(AXIS), WHOLE),
                out_specs=self._specs_of_totals(),
                check_vma=False,  # as in parallel.map_step
            )
            shapes = (
                shapes_of(_read_by_gradients(state)),
                self._placed(batch, P(AXIS)),
                self._placed(np.int32(0), WHOLE),
            )
            lowered = jax.jit(mapped).lower(*shapes)
        return functools.partial(self._compile, lowered)

    def trace_update(self, state: TrainState) -> Compile:
        """Traces the second half for a state on the mesh."""
        half = functools.partial(step.update, optimizer=self.optimizer, config=self.config, in_branch=True)
        specs = self._specs_of_totals()
        mapped = jax.shard_map(
            half,
            mesh=self.mesh,
            in_specs=(self.state_specs, specs),
            out_specs=(self.state_specs, WHOLE),
            check_vma=False,
        )
        with _tracing():
            totals = Totals(
                self._placed(state.params, specs.gradients),
                self._placed(jax.eval_shape(_sums_of_nothing), WHOLE),
                self._placed(state.batch_stats, WHOLE),
            )
            lowered = jax.jit(mapped, donate_argnums=0).lower(shapes_of(state), totals)
        return functools.partial(self._compile, lowered)

    def joined(self, sum_gradients: Any, update: Any) -> StepInHalves:
        """The step of two compiled halves."""
        return StepInHalves(sum_gradients, update, place(np.int32(self.config.schedule.no_aug_step), self.mesh))

    def _specs_of_totals(self) -> Any:  # partition specs in the place of arrays
        gradients = WHOLE if self.state_specs == WHOLE else self.state_specs.ema["params"]
        whole: Any = WHOLE
        return Totals(gradients, whole, whole)

    def _placed(self, tree: Any, specs: Any) -> Any:
        return placed_shapes(tree, self.mesh, specs)

    def _compile(self, lowered: jax.stages.Lowered) -> Any:
        return compile_lowered(lowered, self.mesh, self.model.cpu_kernels)


def suits(mesh: Mesh, kind: str = "shard_map") -> bool:
    """True if a step mapped as `kind` (parallel.map_step) is compiled in halves: on a CPU, in a run of one process."""
    return kind == "shard_map" and platform_of(mesh) == "cpu" and jax.process_count() == 1


def _read_by_gradients(state: TrainState) -> TrainState:
    return TrainState(state.step, state.params, state.batch_stats, None, (), state.loss_scale)


def _sums_of_nothing() -> losses.LossSums:
    anchors = make_anchors((32, 32))
    num_anchors = len(anchors.strides)
    raw = Predictions(jnp.zeros((1, num_anchors, 4)), jnp.zeros((1, num_anchors)), jnp.zeros((1, num_anchors, 1)))
    boxes, labels = jnp.zeros((1, 1, 4)), jnp.zeros((1, 1), jnp.int32)
    return losses.loss_sums(raw, anchors, boxes, labels, labels > 0, 0.0)
