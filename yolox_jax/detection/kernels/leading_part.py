"""Computes a mask of N items from as few of the first ones as matter, on a CPU."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_SHARES = (4, 2)  # of N: of COCO's photographs 62 % have no more candidates than N / 4 (benchmarks/NOTES.md)
_FEW = 256  # so few items take no time


def of_leading_part(function: Callable[[Any], jax.Array], arrays: Any, valid_N: jax.Array) -> jax.Array:
    """`function(arrays)`, which is bool [N].

    Args:
      function: must give False where an item is not valid, and the same for the others if these are cut away.
      arrays: a tree of arrays [N, …].
      valid_N: True for the items that matter. Only the items behind the last of them may be cut away.
    """
    num_items = len(valid_N)
    if num_items <= _FEW:
        return function(arrays)
    function = jax.jit(function, inline=True)  # traced once for each length
    lengths = [*(-(-num_items // share) for share in _SHARES), num_items]

    def of_length(arrays: Any, *, length: int) -> jax.Array:
        return jnp.pad(function(jax.tree.map(lambda x: x[:length], arrays)), (0, num_items - length))

    def shortest(arrays: Any, valid_N: jax.Array) -> jax.Array:
        end = jnp.where(valid_N, jnp.arange(1, num_items + 1), 0).max()
        choice = sum((end > length).astype(jnp.int32) for length in lengths[:-1])
        return lax.switch(choice, [functools.partial(of_length, length=length) for length in lengths], arrays)

    def whole(arrays: Any, _: jax.Array) -> jax.Array:
        return function(arrays)

    # On other platforms images are mapped together, and a choice for each would compute all branches for all.
    return lax.platform_dependent(arrays, valid_N, cpu=shortest, default=whole)
