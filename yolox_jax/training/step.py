"""One training step, written for one device with the mapped axis "data"."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from yolox_jax.augment.colour import shift_content
from yolox_jax.augment.multiscale import resize
from yolox_jax.detection import losses
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.mesh import AXIS
from yolox_jax.models import freezing
from yolox_jax.models.yolox import YOLOX
from yolox_jax.training import zero
from yolox_jax.training.optim import update_ema
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.state import TrainState
from yolox_jax.types import Batch

_COUNTS = ("num_fg", "num_gt")  # the metrics that add up over the parts of a batch


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What a step depends on besides state and batch."""

    schedule: Schedule
    ema_decay: float = 0.9998
    shard_state: bool = False  # the optimiser's state and the average are divided over the devices (zero.py)
    assignment: SimOtaConfig = SimOtaConfig()
    accumulate_steps: int = 1  # parts that a device's images pass the network in, one after another, for less memory
    freeze: tuple[str, ...] = ()  # patterns of what does not learn (freezing.py)
    hsv_multiplies: bool = False


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: YOLOX,
    optimizer: optax.GradientTransformation,
    config: StepConfig,
    size_hw: tuple[int, int] | None = None,
) -> tuple[TrainState, losses.Metrics]:
    """Augments, predicts, assigns, descends and averages: one step on this device's part of the batch.

    Must run under a mapped axis named "data" (parallel.map_step). BatchNorm sees this device's images only; its running
    statistics are averaged over the devices, the gradients summed. A step whose loss or gradient is not finite changes
    nothing but `step`.

    Args:
      state: the same on every device; with config.shard_state, `ema` and `opt_state` are this device's slices.
      batch: this device's images.
      model: the network.
      optimizer: without its learning rate.
      config: everything else.
      size_hw: the size to train at; the batch's own where None.
    Returns:
      The new state and metrics of the global batch: those of losses.detection_loss, learning_rate, grad_norm, and
      skipped, which is 1 where the step changed nothing.
    """
    frozen = freezing.frozen_mask({"params": state.params, "batch_stats": state.batch_stats}, config.freeze)

    def forward_backward(batch_stats: Any, part: Batch) -> tuple[Any, losses.Metrics, Any]:
        images_BHW3, gt_xyxy_BG4 = augment(part, size_hw, config.hsv_multiplies)

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[losses.Metrics, Any]]:
            variables = {"params": freezing.stop_frozen_gradients(frozen["params"], params), "batch_stats": batch_stats}
            with freezing.frozen_statistics(config.freeze):
                predictions, updated = model.apply(variables, images_BHW3, train=True, mutable=["batch_stats"])
            loss, metrics = losses.detection_loss(
                predictions,
                make_anchors(images_BHW3.shape[1:3]),
                gt_xyxy_BG4,
                part.gt_labels,
                part.gt_mask,
                config.schedule.l1_weight(state.step),
                assignment_config=config.assignment,
                axis_name=AXIS,
            )
            return loss, (metrics, updated["batch_stats"])

        gradients, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
        return gradients, metrics, batch_stats

    accumulated = accumulate(forward_backward, config.accumulate_steps)
    gradients, metrics, batch_stats = accumulated(state.batch_stats, batch)
    num_shares = lax.axis_size(AXIS) if config.shard_state else 1
    gradients, metrics, batch_stats = _over_all_devices(gradients, metrics, batch_stats, num_shares)

    # Each device moves its own slices only, which are all there is where nothing is divided.
    learning_rate = config.schedule.learning_rate(state.step)
    own_params = zero.own_share(state.params, num_shares, AXIS)
    updates, opt_state = optimizer.update(gradients, state.opt_state, own_params)
    own_params = jax.tree.map(lambda param, update: param - learning_rate * update, own_params, updates)
    own_variables = {"params": own_params, "batch_stats": zero.own_share(batch_stats, num_shares, AXIS)}
    ema = update_ema(state.ema, own_variables, state.step + 1, config.ema_decay)
    ema = freezing.keep_frozen(frozen, ema, state.ema)
    params = zero.gather(own_params, state.params, AXIS)
    params = freezing.keep_frozen(frozen["params"], params, state.params)
    batch_stats = freezing.keep_frozen(frozen["batch_stats"], batch_stats, state.batch_stats)

    grad_norm = zero.norm(gradients, state.params, AXIS)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
    new_state = TrainState(state.step, params, batch_stats, ema, opt_state)
    new_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_state, state)
    new_state = new_state.replace(step=state.step + 1)
    metrics |= {"learning_rate": learning_rate, "grad_norm": grad_norm, "skipped": 1.0 - finite.astype(jnp.float32)}
    return new_state, metrics


def augment(batch: Batch, size_hw: tuple[int, int] | None, hsv_multiplies: bool = False) -> tuple[jax.Array, jax.Array]:
    """The device's share of augmentation: float32 images 0..255 [B, H, W, 3] and boxes [B, G, 4] at the step's size."""
    images_BHW3, gt_xyxy_BG4 = batch.images, batch.gt_boxes
    if batch.hsv_shift is not None and batch.content_hw is not None:
        shift = functools.partial(shift_content, multiplies=hsv_multiplies)
        images_BHW3 = jax.vmap(shift)(images_BHW3, batch.hsv_shift, batch.content_hw)
    images_BHW3 = images_BHW3.astype(jnp.float32)
    if size_hw is not None:
        images_BHW3, gt_xyxy_BG4 = resize(images_BHW3, gt_xyxy_BG4, size_hw)
    return images_BHW3, gt_xyxy_BG4


def accumulate(
    forward_backward: Callable[[Any, Batch], tuple[Any, losses.Metrics, Any]], num_parts: int
) -> Callable[[Any, Batch], tuple[Any, losses.Metrics, Any]]:
    """`forward_backward(batch_stats, batch) -> (gradients, metrics, batch_stats)` in parts, one after another.

    Gradients and losses are those of the whole batch: each part's are divided by its own positives, so they are weighted by
    these. But a BatchNorm that is not frozen sees one part at a time, and moves its statistics at each.
    """
    if num_parts == 1:
        return forward_backward

    def addends(batch_stats: Any, part: Batch) -> tuple[Any, tuple[Any, ...]]:
        gradients, metrics, batch_stats = forward_backward(batch_stats, part)
        weight = jnp.maximum(metrics["num_fg"], 1)
        gradients, shares = jax.tree.map(lambda x: weight * x, (gradients, _shares(metrics)))
        return batch_stats, (gradients, shares, {name: metrics[name] for name in _COUNTS})

    def add(carry: tuple[Any, Any], part: Batch) -> tuple[tuple[Any, Any], None]:
        batch_stats, added = addends(carry[0], part)
        return (batch_stats, jax.tree.map(jnp.add, carry[1], added)), None

    def in_parts(batch_stats: Any, batch: Batch) -> tuple[Any, losses.Metrics, Any]:
        parts = jax.tree.map(lambda x: x.reshape(num_parts, -1, *x.shape[1:]), batch)
        _, shapes = jax.eval_shape(addends, batch_stats, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (batch_stats, (gradients, shares, counts)), _ = lax.scan(add, (batch_stats, zeros), parts)
        scale = 1 / jnp.maximum(counts["num_fg"], 1)
        gradients, shares = jax.tree.map(lambda x: scale * x, (gradients, shares))
        per_gt = counts["num_fg"] / jnp.maximum(counts["num_gt"], 1)
        return gradients, {**shares, **counts, "num_fg_per_gt": per_gt}, batch_stats

    return in_parts


def _shares(metrics: losses.Metrics) -> losses.Metrics:
    """Those metrics that are this device's share of a sum."""
    return {name: value for name, value in metrics.items() if name.startswith("loss")}


def _over_all_devices(
    gradients: Any, metrics: losses.Metrics, batch_stats: Any, num_shares: int
) -> tuple[Any, losses.Metrics, Any]:
    """Sums what is this device's share of a sum, averages the BatchNorm statistics; the gradients in as many slices."""
    shares = _shares(metrics)
    if num_shares > 1:
        gradients = zero.sum_to_shares(gradients, num_shares, AXIS)
        shares, stats_sum = lax.psum((shares, batch_stats), AXIS)
    else:
        gradients, shares, stats_sum = lax.psum((gradients, shares, batch_stats), AXIS)
    num_devices = lax.axis_size(AXIS)
    return gradients, metrics | shares, jax.tree.map(lambda total: total / num_devices, stats_sum)
