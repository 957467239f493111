"""The gradients of a convolution at a stride in forms that XLA:CPU gives to oneDNN.

A program gets oneDNN only by its compiler options (compiler_options.py), which the network cannot see, so `create`
takes the choice as an argument. Without them these forms compute the same.
"""

import jax
import jax.numpy as jnp
from jax import lax


def has_strided_forms(hw: tuple[int, ...], size: int, stride: int) -> bool:
    """True if `strided_input_grad` and `strided_filter_grad` take images and kernels of these sides."""
    return 1 < stride <= size and size % 2 == 1 and hw[0] % stride == 0 and hw[1] % stride == 0


def strided_input_grad(grad_BHWD: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The gradient of x in convolution.dense_plain.

    oneDNN refuses XLA's form, a convolution of the gradient spread out with zeros. Each of the stride² pixels of a cell
    sees its own taps of the kernel, so here are as many plain convolutions, whose results are interleaved.
    """
    size = kernel.shape[0]

    def taps_and_padding(pixel: int) -> tuple[slice, tuple[int, int]]:
        """The taps that row or column `pixel` of a cell sees, last one first, and the cells beyond the image."""
        first = (pixel + size // 2) % stride
        last = first + (size - 1 - first) // stride * stride
        end = first - stride if first >= stride else None
        padding = (last - pixel - size // 2) // stride, (pixel + size // 2 - first) // stride
        return slice(last, end, -stride), padding

    def pixel_grad(row: int, column: int) -> jax.Array:
        (rows, above_below), (columns, left_right) = taps_and_padding(row), taps_and_padding(column)
        return lax.conv_general_dilated(
            grad_BHWD,
            kernel[rows, columns].transpose(0, 1, 3, 2),  # in this order: oneDNN gets no kernel that ends in a reversal
            window_strides=(1, 1),
            padding=[above_below, left_right],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    cells = [jnp.stack([pixel_grad(row, column) for column in range(stride)], axis=3) for row in range(stride)]
    batch, height, width, _ = grad_BHWD.shape
    rows = [row.reshape(batch, height, width * stride, -1) for row in cells]
    return jnp.stack(rows, axis=2).reshape(batch, height * stride, width * stride, -1)


def strided_filter_grad(x_BHWC: jax.Array, grad_BHWD: jax.Array, size: int, stride: int) -> jax.Array:
    """The gradient of the kernel in convolution.dense_plain: for each tap, a matrix product over all pixels."""
    (_, height, width, features), pad = x_BHWC.shape, size // 2
    x = jnp.pad(x_BHWC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    grad = grad_BHWD.reshape(-1, grad_BHWD.shape[-1])
    views = [x[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
    products = [jnp.einsum("nc,nd->cd", view.reshape(-1, features), grad) for view in views]
    return jnp.stack(products).reshape(size, size, features, -1)
