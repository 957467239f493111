"""Space-to-depth: the first stages on cells of 2×2 pixels, [B, H, W, C] held as [B, H/2, W/2, C·4], to suit a TPU.

A TPU holds channels in lanes of 128, so an array of 32 channels occupies four times its bytes wherever it is written
and read. In cells it occupies its own size. Kernels are padded with zeros to compute the same on cells; that costs a
TPU nothing, since its matrix unit, 128 lanes wide too, would otherwise multiply padding.

A cell's channel is channel · 4 + row · 2 + column, so concatenating arrays in this layout concatenates their channels.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.models.kernels.convolution import dense_plain

Layout = Literal["plain", "space_to_depth"]  # of an array inside the network
Choice = bool | Literal["auto"]  # the user's setting: on, off, or on if the platform is a TPU

_PIXELS = 4  # in a cell
_MAX_CHANNELS = 32  # of the stem: as cells, 32 channels fill the 128 lanes; wider stems gain nothing


def space_to_depth(x_BHWC: jax.Array) -> jax.Array:
    """Gathers each 2×2 pixels into a cell: [B, H, W, C] to [B, H/2, W/2, C·4]."""
    batch, height, width, channels = x_BHWC.shape
    x = x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // 2, width // 2, channels * _PIXELS)


def depth_to_space(cells: jax.Array) -> jax.Array:
    """Spreads cells into pixels: [B, H/2, W/2, C·4] to [B, H, W, C]."""
    batch, height, width, depth = cells.shape
    x = cells.reshape(batch, height, width, depth // _PIXELS, 2, 2)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(batch, 2 * height, 2 * width, depth // _PIXELS)


def conv_plain(cells: jax.Array, kernel: jax.Array, stride: int, out_layout: Layout) -> jax.Array:
    """Convolves the plain array that `cells` holds with [n, n, C, D]; the result is in `out_layout`."""
    y_BHWD = dense_plain(depth_to_space(cells), kernel, stride)
    return space_to_depth(y_BHWD) if out_layout == "space_to_depth" else y_BHWD


def focus_plain(x_BHWC: jax.Array) -> jax.Array:
    """The reference's Focus: [B, H, W, C] to [B, H/2, W/2, 4·C].

    Here the pixel comes before the channel, in the order top left, bottom left, top right, bottom right.
    """
    batch, height, width, channels = x_BHWC.shape
    x = x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 4, 2, 5)
    return x.reshape(batch, height // 2, width // 2, 4 * channels)


def conv(cells: jax.Array, kernel: jax.Array, stride: int, out_layout: Layout) -> jax.Array:
    """Computes `conv_plain` on the cells, with a kernel padded by zeros. A plain result needs stride 2."""
    if out_layout == "plain":
        cell_kernel, padding, cell_stride = *_kernel_to_pixels(kernel), stride // 2
    else:
        cell_kernel, padding, cell_stride = *_kernel_to_cells(kernel, stride), stride
    return lax.conv_general_dilated(
        cells, cell_kernel, (cell_stride, cell_stride), [padding] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def focus(x_BHWC: jax.Array, layout: Layout) -> jax.Array:
    """Computes `focus_plain` in this layout, in one transposition: each one of an image costs time on a TPU."""
    if layout == "plain":
        return lax.platform_dependent(x_BHWC, cpu=focus_by_slices, default=focus_plain)
    batch, height, width, channels = x_BHWC.shape
    x = x_BHWC.reshape(batch, height // 4, 2, 2, width // 4, 2, 2, channels).transpose(0, 1, 4, 6, 3, 7, 2, 5)
    return x.reshape(batch, height // 4, width // 4, 4 * channels * _PIXELS)


def focus_by_slices(x_BHWC: jax.Array) -> jax.Array:
    """Computes `focus_plain` from four strided slices: XLA:CPU transposes three channels on one core, one by one."""
    return jnp.concatenate([x_BHWC[:, row::2, column::2] for column in range(2) for row in range(2)], axis=-1)


def choose_layout(choice: Choice, stem_channels: int, depthwise: bool) -> Layout:
    """The layout of a network's stem and first stage.

    Plain for wide stems, which gain nothing, and for depthwise networks, whose convolutions have no form on cells.
    "auto" is plain except on a TPU: a GPU has no lanes to fill and would do four times the work.
    """
    is_on = jax.default_backend() == "tpu" if choice == "auto" else choice
    return "space_to_depth" if is_on and stem_channels <= _MAX_CHANNELS and not depthwise else "plain"


def num_channels(x: jax.Array, layout: Layout) -> int:
    """The channels of the plain array."""
    return x.shape[-1] // _PIXELS if layout == "space_to_depth" else x.shape[-1]


def _kernel_to_cells(kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[int, int]]:
    """The kernel from cells to cells that computes what [n, n, I, O] does at this stride, and its padding."""
    per_row = [_shifted(kernel, stride * row, axis=0, extent=stride + 1) for row in range(2)]
    shifted = [[_shifted(k, stride * column, axis=1, extent=stride + 1) for column in range(2)] for k in per_row]
    size, in_features, out_features = kernel.shape[0], *kernel.shape[2:]
    num_cells = shifted[0][0].shape[0] // 2
    # [output row, output column, cell, row, cell, column, I, O]
    all_8 = jnp.stack([jnp.stack(row) for row in shifted]).reshape(
        2, 2, num_cells, 2, num_cells, 2, in_features, out_features
    )
    cell_kernel = all_8.transpose(2, 4, 6, 3, 5, 7, 0, 1).reshape(
        num_cells, num_cells, in_features * _PIXELS, out_features * _PIXELS
    )
    before = (size // 2 + 1) // 2
    return cell_kernel, (before, num_cells - 1 - before)


def _kernel_to_pixels(kernel: jax.Array) -> tuple[jax.Array, tuple[int, int]]:
    """The kernel from cells to pixels that computes at stride 1 what [n, n, I, O] does at 2, and its padding."""
    size, in_features, out_features = kernel.shape[0], *kernel.shape[2:]
    shifted = _shifted(_shifted(kernel, 0, axis=0, extent=1), 0, axis=1, extent=1)
    num_cells = shifted.shape[0] // 2
    before = (size // 2 + 1) // 2
    cells = shifted.reshape(num_cells, 2, num_cells, 2, in_features, out_features).transpose(0, 2, 4, 1, 3, 5)
    cell_kernel = cells.reshape(num_cells, num_cells, in_features * _PIXELS, out_features)
    return cell_kernel, (before, num_cells - 1 - before)


def _shifted(kernel: jax.Array, shift: int, *, axis: int, extent: int) -> jax.Array:
    """Pads a kernel along one axis to whole cells, so that tap i sees pixel shift + i − n//2 of the output's own cell.

    `extent` is one more than the largest shift that must fit.
    """
    size = kernel.shape[axis]
    cells_before = (size // 2 + 1) // 2
    last_pixel = (extent - 1) + size - 1 - size // 2
    num_pixels = 2 * (cells_before + last_pixel // 2 + 1)
    before = 2 * cells_before + shift - size // 2
    padding = [(0, 0)] * kernel.ndim
    padding[axis] = (before, num_pixels - before - size)
    return jnp.pad(kernel, padding)
