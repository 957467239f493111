"""SiLU: the formula, then a form that keeps less memory for the backward pass."""

import jax


def silu_plain(x: jax.Array) -> jax.Array:
    """x·sigmoid(x)."""
    return x * jax.nn.sigmoid(x)


@jax.custom_vjp
def silu(x: jax.Array) -> jax.Array:
    """Computes `silu_plain`, and its gradient from x alone: autodiff would keep the sigmoid too, one more array."""
    return silu_plain(x)


def _silu_bwd(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    rest = jax.nn.sigmoid(-x)  # 1 − sigmoid(x); written with sigmoid(x), XLA would keep the one of the forward pass
    return (grad * ((1 - rest) * (1 + x * rest)),)


silu.defvjp(lambda x: (silu(x), x), _silu_bwd)
