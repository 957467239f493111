"""Gradient accumulation: a batch passes through the network in parts, and their sums are added."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.types import Batch

# (batch_stats, batch) -> (batch_stats, a tree of sums over the batch)
ForwardBackward = Callable[[Any, Batch], tuple[Any, Any]]


def accumulate(forward_backward: ForwardBackward, num_parts: int) -> ForwardBackward:
    """Makes `forward_backward` take `num_parts` equal parts of the batch, one after another, and add their sums.

    The sums are those of the whole batch, except that BatchNorm sees one part at a time (unless its statistics are
    frozen) and updates its running statistics at each part.
    """
    if num_parts == 1:
        return forward_backward

    def add_part(carry: tuple[Any, Any], part: Batch) -> tuple[tuple[Any, Any], None]:
        batch_stats, total = carry
        batch_stats, sums = forward_backward(batch_stats, part)
        return (batch_stats, jax.tree.map(jnp.add, total, sums)), None

    def in_parts(batch_stats: Any, batch: Batch) -> tuple[Any, Any]:
        parts = jax.tree.map(lambda x: x.reshape(num_parts, -1, *x.shape[1:]), batch)
        _, shapes = jax.eval_shape(forward_backward, batch_stats, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (batch_stats, total), _ = lax.scan(add_part, (batch_stats, zeros), parts)
        return batch_stats, total

    return in_parts
