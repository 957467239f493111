"""Lowers the programs of training and evaluation for a mesh, from shapes alone: no array is allocated."""

import dataclasses
import functools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from yolox_jax import compiler_options
from yolox_jax.cli import from_config
from yolox_jax.compiler_options import Options
from yolox_jax.detection.anchors import check_size
from yolox_jax.inference.predict import make_predict
from yolox_jax.mesh import AXIS, check_batch_size, placed_shapes, platform_of
from yolox_jax.models import yolox
from yolox_jax.models.folding import folded_shapes
from yolox_jax.training import parallel, state
from yolox_jax.training.step import train_step
from yolox_jax.types import Batch
from yolox_jax.weights.official import abstract_variables

_NUM_CLASSES = 80  # COCO's, if the config leaves it to the data set
_NUM_IMAGES = 118_287  # of COCO train2017: changes constants of the schedule, not the cost of the program


@dataclasses.dataclass(frozen=True)
class Program:
    """A lowered program, the size of its arguments on one chip, and the options that it is compiled with."""

    lowered: jax.stages.Lowered
    argument_bytes: dict[str, int]  # by kind
    options: Options


def train_program(config: ConfigDict, mesh: Mesh, batch_per_chip: int, dtype: str) -> Program:
    """Lowers the training step at the config's input size, with `batch_per_chip` images on each device of the mesh."""
    size_hw = check_size(config.input_size)
    model = _create_model(config, dtype, mesh, AXIS if config.parallel.sync_bn else None)
    optimizer = from_config.optimizer(config)
    step_config = from_config.step_config(config, from_config.schedule(config, _NUM_IMAGES))
    step = functools.partial(train_step, model=model, optimizer=optimizer, config=step_config, size_hw=size_hw)
    create = functools.partial(state.create, optimizer=optimizer, dtype=jnp.dtype(dtype))
    train_state = jax.eval_shape(create, abstract_variables(model))
    num_images = batch_per_chip * mesh.size
    check_batch_size("batch_size", num_images, mesh, config.accumulate_steps)
    batch = jax.eval_shape(lambda: _batch(num_images, size_hw, config.data.max_boxes, config.hsv.enabled))
    specs = parallel.state_specs(train_state, mesh, config.parallel.shard_state)
    # map_step is typed as returning a plain function; with shard_map, the default, it is a jitted one.
    mapped = cast(jax.stages.Wrapped, parallel.map_step(step, mesh, state_specs=specs))
    train_state, batch = placed_shapes(train_state, mesh, specs), placed_shapes(batch, mesh, P(AXIS))
    lowered = mapped.lower(train_state, batch)
    return Program(
        lowered,
        {
            "parameters": _num_bytes((train_state.params, train_state.batch_stats)),
            "optimiser": _num_bytes((train_state.opt_state, train_state.loss_scale)),
            "EMA": _num_bytes(train_state.ema),
            "batch": _num_bytes(batch),
        },
        compiler_options.for_training_step(platform_of(mesh)),
    )


def predict_program(config: ConfigDict, mesh: Mesh, batch_per_chip: int, dtype: str) -> Program:
    """Lowers prediction as in evaluation: images to detections, including NMS."""
    model, (height, width) = _create_model(config, dtype, mesh), check_size(config.input_size)
    predict = make_predict(model, mesh, from_config.detect_config(config))
    variables = folded_shapes(model, abstract_variables(model), platform_of(mesh))
    images = jax.ShapeDtypeStruct((batch_per_chip * mesh.size, height, width, 3), jnp.uint8)
    variables, images = placed_shapes(variables, mesh, P()), placed_shapes(images, mesh, P(AXIS))
    lowered = cast(jax.stages.Wrapped, predict).lower(variables, images)
    sizes = {"parameters": _num_bytes(variables), "batch": _num_bytes(images)}
    return Program(lowered, sizes, compiler_options.repeatable(platform_of(mesh)))


PROGRAMS = {"train": train_program, "predict": predict_program}


def _create_model(config: ConfigDict, dtype: str, mesh: Mesh, bn_axis: str | None = None) -> yolox.YOLOX:
    num_classes = config.num_classes or _NUM_CLASSES
    # "auto" would ask for the platform of this process, which is a CPU.
    is_tpu = platform_of(mesh) == "tpu"
    return yolox.create(config.model, num_classes, jnp.dtype(dtype), bn_axis=bn_axis, space_to_depth=is_tpu)


def _batch(num_images: int, size_hw: tuple[int, int], num_slots: int, has_hsv: bool) -> Batch:
    return Batch(
        images=jnp.zeros((num_images, *size_hw, 3), jnp.uint8),
        gt_boxes=jnp.zeros((num_images, num_slots, 4)),
        gt_labels=jnp.zeros((num_images, num_slots), jnp.int32),
        gt_mask=jnp.zeros((num_images, num_slots), bool),
        hsv_shift=jnp.zeros((num_images, 3)) if has_hsv else None,
        content_hw=jnp.zeros((num_images, 2), jnp.int32) if has_hsv else None,
    )


def _num_bytes(placed: Any) -> int:
    """Size of one device's part of a tree from `placed_shapes`."""
    leaves = jax.tree.leaves(placed)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
