"""Dense and 1×1 convolution: the formulas, then gradients in the forms that are fast on a CPU.

At the end, how detection stores kernels for a platform.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.compiler_options import CpuKernels
from yolox_jax.models.kernels import onednn, winograd


def dense_plain(x_BHWC: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves [B, H, W, C] with [n, n, C, D], padded by n // 2 on every side as torch pads."""
    return lax.conv_general_dilated(
        x_BHWC,
        kernel,
        window_strides=(stride, stride),
        padding=[(kernel.shape[0] // 2,) * 2] * 2,  # 'SAME' would pad only one side at stride 2
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def pointwise_plain(x_BHWC: jax.Array, kernel_CD: jax.Array) -> jax.Array:
    """Convolves [B, H, W, C] with a 1×1 kernel [C, D]: a matrix product over the channels."""
    return x_BHWC @ kernel_CD


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def dense_conv(x_BHWC: jax.Array, kernel: jax.Array, stride: int, cpu_kernels: CpuKernels = "xla") -> jax.Array:
    """Computes `dense_plain`. On a CPU, gradients of large images are computed in parts of the batch; with oneDNN,
    large kernels at stride 1 go by Winograd's algorithm, and gradients of stride 2 in a form that it takes.
    """
    if cpu_kernels == "onednn" and winograd.is_faster(kernel, stride):
        return winograd.conv(x_BHWC, kernel)
    return dense_plain(x_BHWC, kernel, stride)


_MANY_PIXELS = 320 * 320  # from here on, XLA:CPU is faster in parts; at 208×208 it is slower (benchmarks/NOTES.md)


def _dense_fwd(
    x: jax.Array, kernel: jax.Array, stride: int, cpu_kernels: CpuKernels
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return dense_conv(x, kernel, stride, cpu_kernels), (x, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _dense_bwd(
    stride: int, cpu_kernels: CpuKernels, saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients of x and kernel. XLA:CPU would compute those of a whole batch of large images on one core."""
    x, kernel = saved
    size = kernel.shape[0]

    def whole(x: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(lambda x, kernel: dense_plain(x, kernel, stride), x, kernel)[1](grad)

    def in_parts(x: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        n = num_parts(len(x))
        pairs = [whole(*part) for part in zip(jnp.split(x, n), jnp.split(grad, n), strict=True)]
        return jnp.concatenate([grad_x for grad_x, _ in pairs]), functools.reduce(operator.add, [k for _, k in pairs])

    if cpu_kernels == "onednn" and winograd.is_faster(kernel, stride):
        return winograd.input_grad(grad, kernel), winograd.filter_grad(x, grad)
    if cpu_kernels == "onednn" and onednn.has_strided_forms(x.shape[1:3], size, stride):
        return onednn.strided_input_grad(grad, kernel, stride), onednn.strided_filter_grad(x, grad, size, stride)
    if x.shape[1] * x.shape[2] < _MANY_PIXELS:
        return whole(x, grad)
    return lax.platform_dependent(x, grad, cpu=in_parts, default=whole)


dense_conv.defvjp(_dense_fwd, _dense_bwd)


@jax.custom_vjp
def pointwise_product(x_BHWC: jax.Array, kernel_CD: jax.Array) -> jax.Array:
    """Computes `pointwise_plain`. For autodiff's gradient of the kernel, XLA:CPU would make a transposed copy of x."""
    return pointwise_plain(x_BHWC, kernel_CD)


def _product_bwd(saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    grad_kernel = jnp.einsum("nc,nd->cd", x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1]))
    return grad @ kernel.T, grad_kernel


pointwise_product.defvjp(lambda x, kernel: (pointwise_plain(x, kernel), (x, kernel)), _product_bwd)


def pointwise_dense(x_BHWC: jax.Array, kernel_CD: jax.Array) -> jax.Array:
    """Computes `pointwise_plain` as a convolution."""
    return dense_plain(x_BHWC, kernel_CD[None, None], stride=1)


def _pointwise_dense_bwd(saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(pointwise_dense, *saved)[1](grad)


@jax.custom_vjp
@functools.partial(jax.jit, inline=True)
def pointwise_conv(x_BHWC: jax.Array, kernel_CD: jax.Array) -> jax.Array:
    """Computes `pointwise_plain`: on an NVIDIA GPU as a convolution, elsewhere as a matrix product.

    Between a product and the convolutions around it, XLA copies arrays on a GPU (benchmarks/NOTES.md).
    """
    return lax.platform_dependent(x_BHWC, kernel_CD, cuda=pointwise_dense, default=pointwise_plain)


@functools.partial(jax.jit, inline=True)
def _pointwise_bwd(saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    return lax.platform_dependent(saved, grad, cuda=_pointwise_dense_bwd, default=_product_bwd)


pointwise_conv.defvjp(lambda x, kernel: (pointwise_conv(x, kernel), (x, kernel)), _pointwise_bwd)

_MAX_PARTS = 8  # more would only take longer to compile


def num_parts(batch: int) -> int:
    """The number of equal parts that a batch is split into, in a program that is unrolled over them."""
    return max(n for n in range(1, _MAX_PARTS + 1) if batch % n == 0)


STORED_OHWI = "kernel_OHWI"  # the name of a variable


def store_kernel(kernel_HWIO: Any, platform: str) -> dict[str, Any]:
    """Returns the variable, by name, in which detection on a platform ("cpu", "gpu", "tpu") keeps a kernel.

    cuDNN reads OHWI: XLA would transpose each kernel at every call. 1×1 kernels are operands of products, and stay.
    """
    if platform == "gpu" and kernel_HWIO.shape[0] > 1:
        return {STORED_OHWI: kernel_HWIO.transpose(3, 0, 1, 2)}
    return {"kernel": kernel_HWIO}


def from_ohwi(kernel_OHWI: jax.Array) -> jax.Array:
    """Returns the HWIO form. On a GPU, XLA reads the stored array as it lies, and moves nothing."""
    return kernel_OHWI.transpose(1, 2, 3, 0)
