"""The row of each column's minimum, the first of equal ones."""

import jax
import jax.numpy as jnp


def argmin_rows(x_GA: jax.Array) -> jax.Array:
    """`jnp.argmin(x_GA, axis=0)` as int32 [A], written as two minima; x must not contain NaN.

    XLA:CPU compiles an argmin to a slow loop (benchmarks/NOTES.md).
    """
    num_rows = x_GA.shape[0]
    row_G1 = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    return jnp.where(x_GA == x_GA.min(axis=0)[None, :], row_G1, num_rows).min(axis=0)
