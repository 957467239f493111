"""Maximum pooling at stride 1: the formula, then a separable form, which is faster on a CPU."""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax


def max_pool_plain(x_BHWC: jax.Array, size: int) -> jax.Array:
    """The maximum of the size×size neighborhood of each pixel. Its gradient goes to the first of equal values."""
    return lax.reduce_window(x_BHWC, -jnp.inf, lax.max, (1, size, size, 1), (1, 1, 1, 1), "SAME")


def max_pool(x_BHWC: jax.Array, size: int) -> jax.Array:
    """Computes `max_pool_plain` as maxima along rows and then along columns (benchmarks/NOTES.md)."""
    return _max_along(_max_along(x_BHWC, size, 2), size, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_along(x: jax.Array, size: int, axis: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _views_along(x, size, axis, -jnp.inf))


def _max_fwd(x: jax.Array, size: int, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest = _max_along(x, size, axis)
    return largest, (x, largest)


def _max_bwd(size: int, axis: int, saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array]:
    """Gives each gradient to the first of the equal values, as torch does.

    The backward pass goes along columns and then along rows, so that is the first one in row-major order.
    """
    x, largest = saved
    not_yet, shares = jnp.ones_like(x, bool), []
    for view in _views_along(x, size, axis, -jnp.inf):
        is_first = not_yet & (view == largest)
        not_yet &= ~is_first
        shares.append(jnp.where(is_first, grad, 0))
    # The share of view i belongs to the pixel that view i shows, so each is shifted back by the opposite offset.
    back = [_views_along(share, size, axis, 0)[size - 1 - i] for i, share in enumerate(shares)]
    return (functools.reduce(operator.add, back),)


_max_along.defvjp(_max_fwd, _max_bwd)


def _views_along(x: jax.Array, size: int, axis: int, fill: float) -> list[jax.Array]:
    """Views of x shifted along one axis by −(size // 2) to size // 2; `fill` is the value outside of x."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (size // 2, size // 2)
    padded = jnp.pad(x, widths, constant_values=fill)
    return [lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(size)]
