"""3×3 convolutions at stride 1 with half of the multiplications, for oneDNN: Winograd's algorithm along the rows.

Four rows of the output need six products with sums of six rows of the input, where the formula needs twelve with the
rows themselves. Along the columns nothing changes, so each product is a 1×3 convolution.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), F(4, 3) in their notation. The products are
values of polynomials at points; rounding errors depend on the points (Barabasz and others, "Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020).
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_ROWS, _TAPS = 4, 3  # of the output, and of the kernel
_SUMS = _ROWS + _TAPS - 1

# Rounding errors are 0.7 times those at 0, ±1 and ±2, and 1.4 times the formula's by oneDNN (benchmarks/NOTES.md). The
# sixth point is infinity.
_POINTS = (0, 0.75, -0.75, 1.5, -1.5)


def _values(num_coefficients: int) -> np.ndarray:
    """Returns [6, num_coefficients]: times the coefficients of a polynomial, its values at the points."""
    at_infinity = np.eye(num_coefficients)[-1:]  # the leading coefficient
    return np.concatenate([np.vander(_POINTS, num_coefficients, increasing=True), at_infinity])


# y = OUTPUT ((KERNEL k) · (INPUT x)), the transpose of a multiplication of polynomials, from six rows x to four rows y.
# The sums of the input are scaled so that their factors are multiples of 1/64, exact in float32.
_INPUT_66 = np.linalg.inv(_values(_SUMS)).T
_SCALE_6 = np.array([*_INPUT_66[:-1, _SUMS - 2], 1.0])
_INPUT_66 = np.round(_INPUT_66 / _SCALE_6[:, None] * 64) / 64
_KERNEL_63 = _values(_TAPS) * _SCALE_6[:, None]
_OUTPUT_46 = _values(_ROWS).T

_MIN_FEATURES = 64  # with fewer, the sums take as long as the multiplications saved (benchmarks/NOTES.md)


def is_faster(kernel: jax.Array, stride: int) -> bool:
    """True if a kernel [n, n, C, D] is one that these functions take, and large enough."""
    height, width, *features = kernel.shape
    return height == width == _TAPS and stride == 1 and min(features) >= _MIN_FEATURES


@functools.partial(jax.jit, inline=True)
def conv(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `convolution.dense_plain` at stride 1 for a 3×3 kernel."""
    batch, height, width, _ = x_BHWC.shape
    kernel_63CD = _sums(_KERNEL_63, list(kernel))
    products = [_conv_columns(x, k) for x, k in zip(_input_sums(x_BHWC), kernel_63CD, strict=True)]
    y_BT4WD = _sums(_OUTPUT_46, products, axis=2)
    return y_BT4WD.reshape(batch, -1, width, kernel.shape[3])[:, :height]


def input_grad(grad_BHWD: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient of x in `conv`."""
    return conv(grad_BHWD, kernel[::-1, ::-1].transpose(0, 1, 3, 2))


def filter_grad(x_BHWC: jax.Array, grad_BHWD: jax.Array) -> jax.Array:
    """The gradient of the kernel in `conv`: for each sum and column of taps, a matrix product over all pixels."""
    _, height, width, features = x_BHWC.shape
    grad_BT4WD = _in_fours(grad_BHWD, above=0, fours=_num_fours(height))
    grad_6BTWD = _sums(_OUTPUT_46.T, [grad_BT4WD[:, :, row] for row in range(_ROWS)])
    grad = jnp.pad(grad_6BTWD, ((0, 0), (0, 0), (0, 0), (1, 1), (0, 0)))
    x_6NC = _input_sums(x_BHWC).reshape(_SUMS, -1, features)
    shifted = [grad[:, :, :, first : first + width] for first in reversed(range(_TAPS))]
    columns = [jnp.einsum("snc,snd->scd", x_6NC, view.reshape(_SUMS, -1, grad.shape[-1])) for view in shifted]
    return _sums(_KERNEL_63.T, list(jnp.stack(columns, axis=1)))


def _num_fours(height: int) -> int:
    return -(-height // _ROWS)


def _in_fours(x_BHWC: jax.Array, above: int, fours: int) -> jax.Array:
    """Pads rows with zeros, `above` of them above, and returns [B, fours, 4, W, C]."""
    batch, height, width, features = x_BHWC.shape
    x = jnp.pad(x_BHWC, ((0, 0), (above, fours * _ROWS - height - above), (0, 0), (0, 0)))
    return x.reshape(batch, fours, _ROWS, width, features)


def _input_sums(x_BHWC: jax.Array) -> jax.Array:
    """Returns six sums of rows, [6, B, T, W, C], for T times four rows of the output."""
    fours = _num_fours(x_BHWC.shape[1])
    x_BT4WC = _in_fours(x_BHWC, above=_TAPS // 2, fours=fours + 1)
    return _sums(_INPUT_66, [x_BT4WC[:, row // _ROWS :][:, :fours, row % _ROWS] for row in range(_SUMS)])


def _conv_columns(x_BTWC: jax.Array, kernel_3CD: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x_BTWC,
        kernel_3CD[None],
        window_strides=(1, 1),
        padding=[(0, 0), (_TAPS // 2, _TAPS // 2)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _sums(factors_nk: np.ndarray, arrays: Sequence[jax.Array], axis: int = 0) -> jax.Array:
    """Returns n weighted sums of k arrays along a new axis."""
    shape = [1] * (arrays[0].ndim + 1)
    shape[axis] = len(factors_nk)
    terms = [
        jnp.asarray(factors_n, array.dtype).reshape(shape) * jnp.expand_dims(array, axis)
        for factors_n, array in zip(factors_nk.T, arrays, strict=True)
    ]
    return functools.reduce(operator.add, terms)
