"""Convolutions between grids of 2×2 blocks: [B, H, W, C] held as [B, H/2, W/2, C·4].

A TPU holds channels in lanes of 128, so an array of 32 channels takes four times its bytes, wherever it is written and
read. Folded it takes its own. The kernel grows by zeros to do the same on blocks; the matrix unit, which has 128 lanes
too, would have worked on zeros anyway. A folded channel is channel · 4 + row · 2 + column, so that concatenating folded
arrays is concatenating channels.
"""

import jax
import jax.numpy as jnp

BLOCK = 4  # pixels


def folded_kernel(kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[int, int]]:
    """The kernel that does on folded arrays what [n, n, I, O] does on plain ones at that stride, and its padding."""
    per_row = [_shifted(kernel, stride * row, axis=0, extent=stride + 1) for row in range(2)]
    shifted = [[_shifted(k, stride * column, axis=1, extent=stride + 1) for column in range(2)] for k in per_row]
    size, in_features, out_features = kernel.shape[0], *kernel.shape[2:]
    blocks = shifted[0][0].shape[0] // 2
    # [output row, output column, block, row, block, column, I, O]
    all_8 = jnp.stack([jnp.stack(row) for row in shifted]).reshape(
        2, 2, blocks, 2, blocks, 2, in_features, out_features
    )
    folded = all_8.transpose(2, 4, 6, 3, 5, 7, 0, 1).reshape(blocks, blocks, in_features * BLOCK, out_features * BLOCK)
    before = (size // 2 + 1) // 2
    return folded, (before, blocks - 1 - before)


def unfolding_kernel(kernel: jax.Array) -> tuple[jax.Array, tuple[int, int]]:
    """The kernel that takes a folded array to the plain result of [n, n, I, O] at stride 2, itself at stride 1."""
    size, in_features, out_features = kernel.shape[0], *kernel.shape[2:]
    shifted = _shifted(_shifted(kernel, 0, axis=0, extent=1), 0, axis=1, extent=1)
    blocks = shifted.shape[0] // 2
    before = (size // 2 + 1) // 2
    folded = shifted.reshape(blocks, 2, blocks, 2, in_features, out_features).transpose(0, 2, 4, 1, 3, 5)
    return folded.reshape(blocks, blocks, in_features * BLOCK, out_features), (before, blocks - 1 - before)


def _shifted(kernel: jax.Array, shift: int, *, axis: int, extent: int) -> jax.Array:
    """The taps along one axis of whole blocks: tap i sees pixel shift + i − n//2 of the first one's, first pixel 0.

    `extent` is one more than the greatest shift.
    """
    size = kernel.shape[axis]
    blocks_before = (size // 2 + 1) // 2
    last_pixel = (extent - 1) + size - 1 - size // 2
    num_pixels = 2 * (blocks_before + last_pixel // 2 + 1)
    before = 2 * blocks_before + shift - size // 2
    padding = [(0, 0)] * kernel.ndim
    padding[axis] = (before, num_pixels - before - size)
    return jnp.pad(kernel, padding)
