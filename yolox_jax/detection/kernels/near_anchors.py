"""On a CPU, applies a function to only the anchors that are candidates, gathered into a fixed number of slots."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.detection.anchors import STRIDES
from yolox_jax.detection.kernels.top_k import CHUNK

_SHARES = tuple((STRIDES[-1] // stride) ** 2 for stride in STRIDES)  # of the CHUNK anchors, those of each level


def over_candidates(
    function: Callable[[jax.Array, Any], Any], candidate_A: jax.Array, arrays: Any, max_candidates: int
) -> Any:
    """Returns `function(candidate_A, arrays)`, a tree of arrays [A].

    Args:
      function: takes a mask and arrays for any number of anchors. Anchors outside the mask must get zeros and must not
        affect the results of others.
      candidate_A: [A] bool.
      arrays: a tree of arrays [A, …].
      max_candidates: a bound on the number of candidates; static.
    """
    # TPUs scatter one element after another: that would take longer than computing all anchors.
    return lax.platform_dependent(
        candidate_A,
        arrays,
        cpu=functools.partial(_gathered, function=function, max_candidates=max_candidates),
        default=function,
    )


def _gathered(
    candidate_A: jax.Array, arrays: Any, *, function: Callable[[jax.Array, Any], Any], max_candidates: int
) -> Any:
    """The same result from only the candidates, gathered in their order into `max_candidates` slots."""
    num_anchors = len(candidate_A)
    if max_candidates >= num_anchors:
        return function(candidate_A, arrays)
    # Sorted, since jnp.nonzero is some twenty kernels to compile, and no faster.
    anchor_N = jnp.sort(jnp.where(candidate_A, jnp.arange(num_anchors), num_anchors))[:max_candidates]
    gathered = jax.tree.map(lambda x_A: jnp.take(x_A, anchor_N, axis=0, mode="clip"), arrays)
    results = function(anchor_N < num_anchors, gathered)
    return jax.tree.map(lambda x_N: jnp.zeros(num_anchors, x_N.dtype).at[anchor_N].set(x_N, mode="drop"), results)


def max_near(num_boxes: int, num_anchors: int, radius: float) -> int:
    """An upper bound on how many anchors, of all levels, lie less than `radius` strides from the center of some box.

    It is rounded up to whole chunks, for top_k.
    """
    per_box = math.ceil(2 * radius) ** 2
    per_level = [-(-num_anchors * share // CHUNK) for share in _SHARES]
    bound = sum(min(per_box * num_boxes, num_level) for num_level in per_level)
    return -(-bound // CHUNK) * CHUNK
