"""ZeRO-1 sharding of optimizer state and EMA weights: each device keeps one slice of every large array.

Source: ZeRO (arXiv 1910.02054), stage 1. An array is sliced along its longest axis whose length is a multiple of the
number of devices. An array without such an axis, for example a bias of four numbers, is whole on every device.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P


def axis_of(shape: tuple[int, ...], num_slices: int) -> int | None:
    """The axis along which an array of this shape is cut into `num_slices`, or None if it stays whole."""
    even = [axis for axis, size in enumerate(shape) if size and size % num_slices == 0]
    return max(even, key=lambda axis: shape[axis]) if even and num_slices > 1 else None


def spec_of(shape: tuple[int, ...], num_slices: int, axis_name: str) -> P:
    """The partition spec of an array of this shape on a mesh of `num_slices` devices over `axis_name`."""
    axis = axis_of(shape, num_slices)
    return P() if axis is None else P(*[None] * axis, axis_name)


def own_slices(tree: Any, num_slices: int, axis_name: str) -> Any:
    """This device's slices of arrays that it holds whole."""

    def take(x: jax.Array) -> jax.Array:
        axis = axis_of(x.shape, num_slices)
        if axis is None:
            return x
        size = x.shape[axis] // num_slices
        return lax.dynamic_slice_in_dim(x, lax.axis_index(axis_name) * size, size, axis)

    return jax.tree.map(take, tree)


def sum_over_devices(sliced: Any, whole: Any, num_slices: int, axis_name: str) -> tuple[Any, Any]:
    """Sums two trees over the devices: the first into this device's slices, the second whole.

    Each array that is cut takes one reduce-scatter; all other arrays of both trees share one all-reduce. With
    `num_slices` of 1 nothing is cut.
    """
    leaves, structure = jax.tree.flatten(sliced)
    axes = [axis_of(leaf.shape, num_slices) for leaf in leaves]
    uncut = [leaf for leaf, axis in zip(leaves, axes, strict=True) if axis is None]
    uncut, whole = lax.psum((uncut, whole), axis_name)
    rest = iter(uncut)
    summed = [
        next(rest) if axis is None else lax.psum_scatter(leaf, axis_name, scatter_dimension=axis, tiled=True)
        for leaf, axis in zip(leaves, axes, strict=True)
    ]
    return jax.tree.unflatten(structure, summed), whole


def gather(slices: Any, like: Any, axis_name: str) -> Any:
    """Joins the slices of all devices into whole arrays of the shapes of `like`."""

    def join(own: jax.Array, whole: jax.Array) -> jax.Array:
        if own.shape == whole.shape:
            return own
        axis = axis_of(whole.shape, lax.axis_size(axis_name))
        assert axis is not None
        return lax.all_gather(own, axis_name, axis=axis, tiled=True)

    return jax.tree.map(join, slices, like)


def norm(slices: Any, like: Any, axis_name: str) -> jax.Array:
    """The Euclidean norm of whole arrays of the shapes of `like`, from this device's slices of them."""
    pairs = list(zip(jax.tree.leaves(slices), jax.tree.leaves(like), strict=True))
    cut = [own for own, whole in pairs if own.shape != whole.shape]
    total = _sum_of_squares([own for own, whole in pairs if own.shape == whole.shape])
    if cut:
        total += lax.psum(_sum_of_squares(cut), axis_name)
    return jnp.sqrt(total)


def _sum_of_squares(arrays: list[jax.Array]) -> jax.Array:
    # As one vector: a sum for each array would give a CPU 700 small kernels to compile (benchmarks/NOTES.md).
    vector = jnp.concatenate([jnp.zeros(1), *(array.ravel() for array in arrays)])
    return jnp.vdot(vector, vector)
