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
    first = jnp.full(x.shape, size)  # the number of the first view with the maximum
    for number, view in reversed(list(enumerate(_views_along(x, size, axis, -jnp.inf)))):
        first = jnp.where(view == largest, number, first)
    # A pixel is in view i of the pixel i - size // 2 before it.
    firsts, grads = (_views_along(array, size, axis, 0)[::-1] for array in (first, grad))
    return (functools.reduce(operator.add, [jnp.where(firsts[i] == i, grads[i], 0) for i in range(size)]),)


_max_along.defvjp(_max_fwd, _max_bwd)


def _views_along(x: jax.Array, size: int, axis: int, fill: float) -> list[jax.Array]:
    """Views of x shifted along one axis by −(size // 2) to size // 2; `fill` is the value outside of x.

    The barrier keeps XLA:CPU from recomputing x for the middle view, and so all pools for the last one.
    """
    widths = [(0, 0)] * x.ndim
    widths[axis] = (size // 2, size // 2)
    padded = jnp.pad(x, widths, constant_values=fill)
    padded = lax.platform_dependent(padded, cpu=lax.optimization_barrier, default=lambda x: x)
    return [lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(size)]
