"""Applies a function to the images of a batch, a few at a time; on a CPU, one at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def map_images(function: Callable[[Any], Any], images: Any, at_a_time: int) -> Any:
    """`jax.vmap(function)(images)`, at most `at_a_time` images at once to bound the memory.

    Args:
      function: takes one image, a tree of arrays without the axis B.
      images: a tree of arrays [B, …]. B may be symbolic (jax.export); images then go one at a time.
      at_a_time: the most images in one call of the mapped function.
    """

    def batched(images: Any) -> Any:
        return lax.map(function, images, batch_size=at_a_time)

    def one_by_one(images: Any) -> Any:
        return lax.map(function, images)

    batch_size = jax.tree.leaves(images)[0].shape[0]
    if not isinstance(batch_size, int):  # cannot be divided by at_a_time
        return one_by_one(images)
    # The arrays of one image fit into a CPU's cache, those of several do not (benchmarks/NOTES.md).
    return lax.platform_dependent(images, cpu=one_by_one, default=batched)


def over_tiles(function: Callable[[jax.Array], Any], tiles_THW3: jax.Array, mask_T: jax.Array) -> Any:
    """`function(tiles_THW3)`, of a function of any number of images; on a CPU, one tile at a time, and no padding.

    The result for padding, where the mask is False, is not specified. T may be symbolic (jax.export).
    """
    traced_once = jax.jit(function, inline=True)

    def one_by_one(tiles_THW3: jax.Array, mask_T: jax.Array) -> Any:
        shapes = jax.eval_shape(traced_once, tiles_THW3[:1])
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def of_one(tile: tuple[jax.Array, jax.Array]) -> Any:
            image_HW3, is_real = tile
            found = lax.cond(is_real, traced_once, lambda _: nothing, image_HW3[None])
            return jax.tree.map(lambda x: x[0], found)

        return lax.map(of_one, (tiles_THW3, mask_T))

    def in_one_batch(tiles_THW3: jax.Array, mask_T: jax.Array) -> Any:
        return function(tiles_THW3)

    # A loop needs the memory of one tile, and on two cores is no slower (benchmarks/NOTES.md).
    return lax.platform_dependent(tiles_THW3, mask_T, cpu=one_by_one, default=in_one_batch)
