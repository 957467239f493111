"""How the weights move: the optimizer and the EMA."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

_EMA_RAMP = 2000  # updates over which the average's memory grows (the reference's ModelEMA)


def create(name: str, *, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """The optimiser "sgd" or "adamw"; AdamW has no use for the momentum.

    Raises:
      ValueError: an unknown name.
    """
    optimizers = {"sgd": lambda: sgd(momentum, weight_decay), "adamw": lambda: adamw(weight_decay)}
    if name not in optimizers:
        raise ValueError(f"config.optimizer is {name!r}: choose one of {', '.join(optimizers)}")
    return optimizers[name]()


def sgd(momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """torch's SGD with Nesterov momentum, less the learning rate, which the step applies."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.trace(decay=momentum, nesterov=True),
    )


def adamw(weight_decay: float) -> optax.GradientTransformation:
    """AdamW with optax's defaults, less the learning rate, which the step applies."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(weight_decay, mask=decay_mask))


def decay_mask(params: Any) -> Any:
    """True for convolution kernels: no BatchNorm and no bias of any kind decays (the reference's get_optimizer)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def ema_decay(num_updates: jax.Array | int, decay: float) -> jax.Array:
    """How much of the average the update number `num_updates` (from 1) keeps."""
    return decay * (1 - jnp.exp(-jnp.asarray(num_updates, jnp.float32) / _EMA_RAMP))


def update_ema(average: Any, new: Any, num_updates: jax.Array | int, decay: float) -> Any:
    """The running average of a pytree after one more update."""
    keep = ema_decay(num_updates, decay)
    return jax.tree.map(lambda old, value: keep * old + (1 - keep) * value, average, new)
