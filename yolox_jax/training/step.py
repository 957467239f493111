"""One training step, written for one device with the mapped axis "data"."""

import dataclasses
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
from yolox_jax.models.yolox import YOLOX
from yolox_jax.training.optim import Schedule, update_ema
from yolox_jax.training.state import TrainState
from yolox_jax.types import Batch

AXIS = "data"  # the devices a global batch is divided over


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What a step depends on besides state and batch."""

    schedule: Schedule
    ema_decay: float = 0.9998
    assignment: SimOtaConfig = SimOtaConfig()


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
      state: the same on every device.
      batch: this device's images.
      model: the network.
      optimizer: without its learning rate.
      config: everything else.
      size_hw: the size to train at; the batch's own where None.
    Returns:
      The new state and metrics of the global batch: those of losses.detection_loss, learning_rate, grad_norm, and
      skipped, which is 1 where the step changed nothing.
    """
    images_BHW3, gt_xyxy_BG4 = augment(batch, size_hw)
    anchors = make_anchors(images_BHW3.shape[1:3])

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[losses.Metrics, Any]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        predictions, updated = model.apply(variables, images_BHW3, train=True, mutable=["batch_stats"])
        loss, metrics = losses.detection_loss(
            predictions,
            anchors,
            gt_xyxy_BG4,
            batch.gt_labels,
            batch.gt_mask,
            config.schedule.l1_weight(state.step),
            assignment_config=config.assignment,
            axis_name=AXIS,
        )
        return loss, (metrics, updated["batch_stats"])

    gradients, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
    gradients, metrics, batch_stats = _over_all_devices(gradients, metrics, batch_stats)

    learning_rate = config.schedule.learning_rate(state.step)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = jax.tree.map(lambda param, update: param - learning_rate * update, state.params, updates)
    new_average = {"params": params, "batch_stats": batch_stats}
    ema = update_ema(state.ema, new_average, state.step + 1, config.ema_decay)

    # Of one vector: tensor by tensor XLA:CPU makes 700 programs of it (nano), 1.1 s of compilation.
    grad_norm = jnp.linalg.norm(jnp.concatenate([gradient.ravel() for gradient in jax.tree.leaves(gradients)]))
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
    new_state = TrainState(state.step, params, batch_stats, ema, opt_state)
    new_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_state, state)
    new_state = new_state.replace(step=state.step + 1)
    metrics |= {"learning_rate": learning_rate, "grad_norm": grad_norm, "skipped": 1.0 - finite.astype(jnp.float32)}
    return new_state, metrics


def augment(batch: Batch, size_hw: tuple[int, int] | None) -> tuple[jax.Array, jax.Array]:
    """The device's share of augmentation: float32 images 0..255 [B, H, W, 3] and boxes [B, G, 4] at the step's size."""
    images_BHW3, gt_xyxy_BG4 = batch.images, batch.gt_boxes
    if batch.hsv_shift is not None and batch.content_hw is not None:
        images_BHW3 = jax.vmap(shift_content)(images_BHW3, batch.hsv_shift, batch.content_hw)
    images_BHW3 = images_BHW3.astype(jnp.float32)
    if size_hw is not None:
        images_BHW3, gt_xyxy_BG4 = resize(images_BHW3, gt_xyxy_BG4, size_hw)
    return images_BHW3, gt_xyxy_BG4


def _over_all_devices(gradients: Any, metrics: losses.Metrics, batch_stats: Any) -> tuple[Any, losses.Metrics, Any]:
    """Sums what is this device's share of a sum, averages the BatchNorm statistics."""
    shares = {name: value for name, value in metrics.items() if name.startswith("loss")}
    gradients, shares, stats_sum = lax.psum((gradients, shares, batch_stats), AXIS)
    num_devices = lax.axis_size(AXIS)
    return gradients, metrics | shares, jax.tree.map(lambda total: total / num_devices, stats_sum)
