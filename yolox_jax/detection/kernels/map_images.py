"""Applies a function of one image to a batch, a few images at a time; on a CPU, one at a time."""

from collections.abc import Callable
from typing import Any

import jax
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
