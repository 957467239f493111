"""One training step, written for one device of the mapped axis "data"."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from yolox_jax.augment.colour import shift_content
from yolox_jax.augment.multiscale import resize
from yolox_jax.detection import losses
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.errors import UserError
from yolox_jax.mesh import AXIS
from yolox_jax.models import freezing
from yolox_jax.models.yolox import YOLOX
from yolox_jax.training import optim, zero
from yolox_jax.training.accumulate import accumulate
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.state import TrainState
from yolox_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Everything that a training step depends on besides the state and the batch."""

    schedule: Schedule
    ema_decay: float
    assignment: SimOtaConfig
    loss: losses.LossConfig
    shard_state: bool = False  # ZeRO-1 sharding of optimizer state and EMA weights (zero.py)
    accumulate_steps: int = 1  # parts of a device's images, one after another, for less memory (accumulate.py)
    freeze: tuple[str, ...] = ()  # patterns of frozen variables (models/freezing.py)
    clip_grad_norm: float | None = None  # the largest global norm of the gradients; None: not clipped
    hsv_multiplies: bool = False  # the batch's hsv_shift holds factors, not levels (augment/colour.py)

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"config.ema_decay is {self.ema_decay}", "give a number from 0 to below 1")
        if self.accumulate_steps < 1:
            raise UserError(f"config.accumulate_steps is {self.accumulate_steps}", "give 1 or more")
        if self.clip_grad_norm is not None and not 0 < self.clip_grad_norm < math.inf:
            raise UserError(f"config.clip_grad_norm is {self.clip_grad_norm}", "give a number above 0, or none")


class Totals(NamedTuple):
    """What the images of a step contribute to it, summed over all devices."""

    gradients: Any  # of the undivided loss; with config.shard_state, this device's slices
    sums: losses.LossSums
    batch_stats: Any  # the updated BatchNorm statistics


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: YOLOX,
    optimizer: optax.GradientTransformation,
    config: StepConfig,
    size_hw: tuple[int, int] | None = None,
    in_branch: bool = False,
) -> tuple[TrainState, losses.Metrics]:
    """Augments, predicts, assigns, and updates the weights and the EMA weights from this device's part of the batch.

    Must run under a mapped axis named "data" (parallel.map_step). One all-reduce sums gradients and losses over the
    devices. BatchNorm normalizes by this device's images only, unless the model has a `bn_axis`; its running statistics
    are averaged over the devices. A step whose loss or gradient is not finite changes nothing but `step` and, in
    float16, `loss_scale`.

    Args:
      state: the same on every device; with config.shard_state, `ema` and `opt_state` are this device's slices.
      batch: this device's images.
      model: the network.
      optimizer: without its learning rate, which the schedule gives.
      config: everything else that is fixed for a run.
      size_hw: the size to train at; None for the batch's own.
      in_branch: how a step that is not finite is left out, as in `update`.
    Returns:
      The new state, and metrics of the global batch: those of losses.divide, learning_rate, grad_norm (before
      clipping), and skipped, which is 1 if the step changed nothing. In float16 also loss_scale, that of this step,
      and overflowed, which is 1 if the step was skipped only because the scale was too high.
    """
    totals = sum_gradients(state, batch, model=model, config=config, size_hw=size_hw)
    return update(state, totals, optimizer=optimizer, config=config, in_branch=in_branch)


def sum_gradients(
    state: TrainState,
    batch: Batch,
    *,
    model: YOLOX,
    config: StepConfig,
    size_hw: tuple[int, int] | None = None,
    no_aug_step: jax.Array | None = None,
) -> Totals:
    """The first half of `train_step`: all that depends on the images and their size.

    `no_aug_step`, in which the no-aug epochs begin, may be traced; None for the schedule's, a constant.
    """
    l1_weight = config.schedule.l1_weight(state.step, no_aug_step)
    forward_backward = functools.partial(
        _forward_backward, state, _frozen_mask(state, config), l1_weight, model=model, config=config, size_hw=size_hw
    )
    batch_stats, (gradients, sums) = accumulate(forward_backward, config.accumulate_steps)(state.batch_stats, batch)
    num_slices = lax.axis_size(AXIS) if config.shard_state else 1
    gradients, (sums, batch_stats) = zero.sum_over_devices(gradients, (sums, batch_stats), num_slices, AXIS)
    return Totals(gradients, sums, batch_stats)


def update(
    state: TrainState,
    totals: Totals,
    *,
    optimizer: optax.GradientTransformation,
    config: StepConfig,
    in_branch: bool = False,
) -> tuple[TrainState, losses.Metrics]:
    """The second half of `train_step`, the same for every image size: the new state, and the metrics.

    `in_branch` puts the update into a branch that a step which is not finite does not take. That is less to compile,
    but the host of a GPU would wait for the condition at each step.
    """
    # The norm is taken before the division, so that the compiler can fuse the division into the update.
    metrics, grad_norm = losses.divide(totals.sums, zero.norm(totals.gradients, state.params, AXIS))
    learning_rate = config.schedule.learning_rate(state.step)
    updated = functools.partial(_update, state, totals, grad_norm, learning_rate, optimizer, config)
    loss_is_finite, gradients_are_finite = jnp.isfinite(metrics["loss"]), jnp.isfinite(grad_norm)
    finite = loss_is_finite & gradients_are_finite
    if in_branch:
        new_state = lax.cond(finite, updated, lambda: state)
    else:
        new_state = jax.tree.map(functools.partial(lax.select, finite), updated(), state)
    new_state = new_state.replace(step=state.step + 1)
    metrics |= {"learning_rate": learning_rate, "grad_norm": grad_norm, "skipped": 1.0 - finite.astype(jnp.float32)}
    if state.loss_scale is not None:
        overflowed = state.loss_scale.is_too_high(loss_is_finite, gradients_are_finite)
        new_state = new_state.replace(loss_scale=state.loss_scale.after(overflowed, finite))
        metrics |= {"loss_scale": state.loss_scale.value, "overflowed": overflowed.astype(jnp.float32)}
    return new_state, metrics


def _frozen_mask(state: TrainState, config: StepConfig) -> Any:
    return freezing.frozen_mask({"params": state.params, "batch_stats": state.batch_stats}, config.freeze)


def augment(batch: Batch, size_hw: tuple[int, int] | None, hsv_multiplies: bool = False) -> tuple[jax.Array, jax.Array]:
    """The augmentation that runs on the device: color shift and resize.

    Returns:
      float32 images 0..255 [B, H, W, 3] and boxes [B, G, 4] xyxy, at the step's size.
    """
    images_BHW3, gt_xyxy_BG4 = batch.images, batch.gt_boxes
    if batch.hsv_shift is not None and batch.content_hw is not None:
        shift = functools.partial(shift_content, multiplies=hsv_multiplies)
        images_BHW3 = jax.vmap(shift)(images_BHW3, batch.hsv_shift, batch.content_hw)
    images_BHW3 = images_BHW3.astype(jnp.float32)
    if size_hw is not None:
        images_BHW3, gt_xyxy_BG4 = resize(images_BHW3, gt_xyxy_BG4, size_hw)
    return images_BHW3, gt_xyxy_BG4


def _forward_backward(
    state: TrainState,
    frozen: Any,
    l1_weight: jax.Array,
    batch_stats: Any,
    part: Batch,
    *,
    model: YOLOX,
    config: StepConfig,
    size_hw: tuple[int, int] | None,
) -> tuple[Any, tuple[Any, losses.LossSums]]:
    """The updated BatchNorm statistics, and the sums over a part of the batch: gradients of its loss, and the rest."""
    images_BHW3, gt_xyxy_BG4 = augment(part, size_hw, config.hsv_multiplies)

    def undivided_loss(params: Any) -> tuple[jax.Array, tuple[losses.LossSums, Any]]:
        variables = {"params": freezing.stop_frozen_gradients(frozen["params"], params), "batch_stats": batch_stats}
        with freezing.frozen_statistics(config.freeze):
            predictions, updated = model.apply(variables, images_BHW3, train=True, mutable=["batch_stats"])
        sums = losses.loss_sums(
            predictions,
            make_anchors(images_BHW3.shape[1:3]),
            gt_xyxy_BG4,
            part.gt_labels,
            part.gt_mask,
            l1_weight,
            assignment_config=config.assignment,
            loss_config=config.loss,
        )
        loss = sums.weighted_sum()
        if state.loss_scale is not None:
            loss *= state.loss_scale.factor(sums)
        return loss, (sums, updated["batch_stats"])

    gradients, (sums, updated_stats) = jax.grad(undivided_loss, has_aux=True)(state.params)
    if state.loss_scale is not None:
        unscale = 1 / state.loss_scale.factor(sums)
        gradients = jax.tree.map(lambda x: x * unscale, gradients)
    return updated_stats, (gradients, sums)


def _update(
    state: TrainState,
    totals: Totals,
    grad_norm: jax.Array,
    learning_rate: jax.Array,
    optimizer: optax.GradientTransformation,
    config: StepConfig,
) -> TrainState:
    """The state after one update. Each device updates its own slices, or everything if nothing is sharded."""
    _, gradients = losses.divide(totals.sums, totals.gradients)
    if config.clip_grad_norm is not None:
        gradients = optim.clip_to_norm(gradients, grad_norm, config.clip_grad_norm)
    batch_stats = jax.tree.map(lambda total: total / lax.axis_size(AXIS), totals.batch_stats)
    frozen, num_slices = _frozen_mask(state, config), lax.axis_size(AXIS) if config.shard_state else 1
    own_params = zero.own_slices(state.params, num_slices, AXIS)
    updates, opt_state = optimizer.update(gradients, state.opt_state, own_params)
    own_params = jax.tree.map(lambda param, update: param - learning_rate * update, own_params, updates)
    own_variables = {"params": own_params, "batch_stats": zero.own_slices(batch_stats, num_slices, AXIS)}
    ema = optim.update_ema(state.ema, own_variables, state.step + 1, config.ema_decay)
    ema = freezing.keep_frozen(frozen, ema, state.ema)
    params = zero.gather(own_params, state.params, AXIS)
    params = freezing.keep_frozen(frozen["params"], params, state.params)
    batch_stats = freezing.keep_frozen(frozen["batch_stats"], batch_stats, state.batch_stats)
    return TrainState(state.step, params, batch_stats, ema, opt_state, state.loss_scale)
