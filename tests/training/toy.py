"""The smallest network that a training step accepts: one convolution with BatchNorm for each level."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from yolox_jax.compiler_options import CpuKernels
from yolox_jax.detection.losses import LossConfig
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.models.blocks import BlockConfig, ConvBlock
from yolox_jax.models.layers import Conv
from yolox_jax.training import optim, state
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.step import StepConfig
from yolox_jax.types import Batch, Predictions
from yolox_jax.weights.meta import Meta

NUM_CLASSES = 3
SIZE = 64
SCHEDULE = Schedule(0.05, 4, 5, warmup_epochs=0, no_aug_epochs=1, min_lr_ratio=0.05)
OPTIMIZER = optim.sgd(0.9, 5e-4)


class ToyDetector(nn.Module):
    """One strided convolution for each level, then raw predictions."""

    bn_axis: str | None = None
    dtype: jnp.dtype = jnp.float32
    cpu_kernels: CpuKernels = "xla"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Predictions:
        levels = []
        for stride in (8, 16, 32):
            pooled = nn.avg_pool(images / 255, (stride, stride), (stride, stride))
            config = BlockConfig(bn_axis=self.bn_axis, dtype=self.dtype, cpu_kernels=self.cpu_kernels)
            features = ConvBlock(8, 3, 1, config)(pooled, train)
            raw = Conv(5 + NUM_CLASSES, bias_init=nn.initializers.constant(-1.0))(features)
            levels.append(raw.reshape(raw.shape[0], -1, 5 + NUM_CLASSES))
        raw = jnp.concatenate(levels, axis=1)
        return Predictions(raw[..., :4], raw[..., 4], raw[..., 5:])


MODEL = ToyDetector()


def step_config(schedule: Schedule = SCHEDULE, **changes: Any) -> StepConfig:
    """The recipe's step, with these fields changed."""
    return StepConfig(
        **{"schedule": schedule, "ema_decay": 0.9998, "assignment": SimOtaConfig(), "loss": LossConfig()} | changes
    )


def create_variables() -> Any:
    return jax.tree.map(jnp.asarray, _initial_variables())


@functools.cache
def _initial_variables() -> Any:
    with jax.ensure_compile_time_eval():  # also if only the shapes are asked for
        return jax.device_get(MODEL.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))


def create_state(dtype: jnp.dtype = jnp.float32) -> state.TrainState:
    return state.create(create_variables(), OPTIMIZER, dtype)


def meta(step: int, **changes: Any) -> Meta:
    """The meta of a checkpoint, with these fields changed."""
    config = {"input_size": [SIZE, SIZE], "optimizer": "sgd"}
    data_state = {"next_step": step, "num_images": 8, "data_set_crc": 1, "global_batch": 4}
    data_state |= {"seed": 0, "mosaic_window": 256}
    return dataclasses.replace(Meta("nano", ("cat", "dog"), step, config, data_state), **changes)


def random_batch(seed: int, batch_size: int = 16) -> Batch:
    """Images of noise, each with zero to four boxes."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (batch_size, 4, 2))
    return Batch(
        images=rng.integers(0, 256, (batch_size, SIZE, SIZE, 3)).astype(np.uint8),
        gt_boxes=np.concatenate([low, low + rng.uniform(8, 24, low.shape)], axis=2).astype(np.float32),
        gt_labels=rng.integers(0, NUM_CLASSES, (batch_size, 4)).astype(np.int32),
        gt_mask=rng.random((batch_size, 4)) < 0.6,
    )
