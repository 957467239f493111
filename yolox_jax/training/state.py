"""The arrays that a training step changes. Checkpoints hold the config, class names and data position beside them."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from yolox_jax.models import initial
from yolox_jax.models.yolox import YOLOX
from yolox_jax.training import loss_scale, optim
from yolox_jax.training.loss_scale import LossScale


@flax.struct.dataclass
class TrainState:
    """One training run after `step` steps."""

    step: jax.Array  # [] int32: steps done
    params: Any
    batch_stats: Any
    ema: Any  # {"params": …, "batch_stats": …}: the EMA weights, ready for model.apply
    opt_state: optax.OptState
    loss_scale: LossScale | None = None  # in float16 only (loss_scale.py)


def init_variables(model: YOLOX, seed: int) -> Any:
    """Randomly initialized {"params", "batch_stats"}."""
    return initial.init_variables(model, seed)


def create(variables: Any, optimizer: optax.GradientTransformation, dtype: jnp.dtype = jnp.float32) -> TrainState:
    """The state before the first step of a run with this compute dtype: float16 needs a loss scale.

    The EMA weights start as a copy, so that both can be donated. Variables that are numpy arrays compile nothing here.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        ema=jax.tree.map(lambda x: x.copy(), {"params": variables["params"], "batch_stats": variables["batch_stats"]}),
        opt_state=optim.init(optimizer, variables["params"]),
        loss_scale=loss_scale.create(dtype),
    )
