"""Bilinear resizing: the formula, then four gathers on a GPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def bilinear_plain(images_BHW3: jax.Array, size_hw: tuple[int, int]) -> jax.Array:
    """Resizes as torch's bilinear interpolate does (align_corners=False), without antialiasing."""
    batch, _, _, channels = images_BHW3.shape
    return jax.image.resize(images_BHW3, (batch, *size_hw, channels), "linear", antialias=False)


def bilinear(images_BHW3: jax.Array, size_hw: tuple[int, int]) -> jax.Array:
    """Computes `bilinear_plain`: on a GPU from the four pixels around each point, elsewhere as two matrix products.

    The products multiply by every pixel of a row or column, in full float32. A GPU would read and write six times as
    much, and XLA's default tiles for the products fit neither A100, H100 nor L4 (benchmarks/NOTES.md).
    """
    gathered, plain = (functools.partial(form, size_hw=size_hw) for form in (by_gathers, bilinear_plain))
    return lax.platform_dependent(images_BHW3, cuda=gathered, rocm=gathered, default=plain)


def by_gathers(images_BHW3: jax.Array, size_hw: tuple[int, int]) -> jax.Array:
    """Computes `bilinear_plain` from the four pixels around each point."""
    above, below, down_H = _neighbors(images_BHW3.shape[1], size_hw[0])
    left, right, across_W = _neighbors(images_BHW3.shape[2], size_hw[1])
    down, across = down_H[None, :, None, None], across_W[None, None, :, None]

    def pixels(rows: np.ndarray, columns: np.ndarray) -> jax.Array:
        return images_BHW3.at[:, jnp.asarray(rows)[:, None], jnp.asarray(columns)[None]].get(mode="promise_in_bounds")

    upper = pixels(above, left) * (1 - across) + pixels(above, right) * across
    lower = pixels(below, left) * (1 - across) + pixels(below, right) * across
    return upper * (1 - down) + lower * down


def _neighbors(num_in: int, num_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output pixel along one axis: the input pixels before and after its center, and the weight of the second.

    Centers outside the outermost pixels' centers take the outermost pixel's value. Computed in float32, as torch does.
    """
    centers = np.arange(num_out, dtype=np.float32) + np.float32(0.5)
    position = np.clip(centers * np.float32(num_in / num_out) - np.float32(0.5), 0, num_in - 1)
    before = np.floor(position).astype(np.int32)
    return before, np.minimum(before + 1, num_in - 1), position - before.astype(np.float32)
