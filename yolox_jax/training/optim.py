"""Weight updates: optimizers, gradient clipping, and EMA weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from yolox_jax.errors import UserError

_EMA_RAMP = 2000  # updates over which the EMA's memory grows (the reference's ModelEMA)


def create(name: str, *, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """Creates the optimizer "sgd" or "adamw"; AdamW ignores the momentum.

    Raises:
      UserError: the name is unknown, or a number is out of range.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"config.optimizer is {name!r}", f"choose one of {', '.join(OPTIMIZERS)}")
    if not 0 <= momentum < 1:
        raise UserError(f"config.momentum is {momentum}", "give a number from 0 to below 1")
    if not 0 <= weight_decay < math.inf:
        raise UserError(f"config.weight_decay is {weight_decay}", "give 0 or more")
    return OPTIMIZERS[name](momentum, weight_decay)


def sgd(momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """torch's SGD with Nesterov momentum, without the learning rate, which the step applies."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.trace(decay=momentum, nesterov=True),
    )


def adamw(weight_decay: float) -> optax.GradientTransformation:
    """AdamW with optax's defaults, without the learning rate, which the step applies."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(weight_decay, mask=decay_mask))


# By name, with momentum and weight decay. `init` below takes their first states to be zeros.
OPTIMIZERS = {"sgd": sgd, "adamw": lambda momentum, weight_decay: adamw(weight_decay)}


def init(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Computes `optimizer.init(params)` of the optimizers above, which is zeros, without a program for each shape."""
    shapes = jax.eval_shape(optimizer.init, params)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def decay_mask(params: Any) -> Any:
    """True for convolution kernels: neither BatchNorm nor any bias decays (the reference's get_optimizer)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def clip_to_norm(gradients: Any, norm: jax.Array, max_norm: float) -> Any:
    """Scales gradients, whose global norm is `norm`, down to a norm of at most `max_norm`.

    The norm is an argument because, with ZeRO-1 sharding, a device holds only slices of the gradients (zero.norm).
    Source: Pascanu et al. (arXiv 1211.5063), as in optax.clip_by_global_norm.
    """
    return jax.tree.map(lambda x: jnp.where(norm < max_norm, x, (x / norm) * max_norm), gradients)


def ema_decay(num_updates: jax.Array | int, decay: float) -> jax.Array:
    """The share of the old EMA that update number `num_updates`, counted from 1, keeps."""
    return decay * (1 - jnp.exp(-jnp.asarray(num_updates, jnp.float32) / _EMA_RAMP))


def update_ema(average: Any, new: Any, num_updates: jax.Array | int, decay: float) -> Any:
    """The EMA of a pytree after one more update."""
    keep = ema_decay(num_updates, decay)
    take = 1 - keep
    return jax.tree.map(lambda old, value: keep * old + take * value, average, new)
