"""Depthwise convolution: the formula, which cuDNN computes, and shifted multiply-adds, much faster on a CPU."""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.compiler_options import CpuKernels
from yolox_jax.models.kernels.convolution import num_parts


def depthwise_plain(x_BHWC: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves each channel of [B, H, W, C] with its own filter of [n, n, 1, C], padded by n // 2 on every side."""
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x_BHWC,
        kernel,
        window_strides=(stride, stride),
        padding=[(pad, pad)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x_BHWC.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
@functools.partial(jax.jit, static_argnums=(2, 3), inline=True)
def depthwise_conv(x_BHWC: jax.Array, kernel: jax.Array, stride: int, cpu_kernels: CpuKernels = "xla") -> jax.Array:
    """Computes `depthwise_plain`: as it stands on an NVIDIA GPU and for oneDNN, elsewhere as `shifted`."""
    shifted_form, grouped = (functools.partial(form, stride=stride) for form in (shifted, depthwise_plain))
    if cpu_kernels == "onednn":
        return grouped(x_BHWC, kernel)
    return lax.platform_dependent(x_BHWC, kernel, cuda=grouped, default=shifted_form)


def shifted(x_BHWC: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Computes `depthwise_plain` as n² shifted multiply-adds: XLA:CPU's grouped convolution is far slower."""
    size = kernel.shape[0]
    products = [tap * kernel[i // size, i % size][None, None] for i, tap in enumerate(_taps(x_BHWC, size, stride))]
    return functools.reduce(operator.add, products)


def _depthwise_fwd(
    x: jax.Array, kernel: jax.Array, stride: int, cpu_kernels: CpuKernels
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise_conv(x, kernel, stride, cpu_kernels), (x, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _depthwise_bwd(
    stride: int, cpu_kernels: CpuKernels, saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    if cpu_kernels == "onednn":
        return _onednn_bwd(*saved, grad, stride)
    shifted_form, grouped = (functools.partial(form, stride=stride) for form in (shifted_bwd, _grouped_bwd))
    return lax.platform_dependent(*saved, grad, cuda=grouped, default=shifted_form)


depthwise_conv.defvjp(_depthwise_fwd, _depthwise_bwd)


def _grouped_bwd(x: jax.Array, kernel: jax.Array, grad: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """The gradients as grouped convolutions; the shifted filter gradient would read both arrays five times."""
    return jax.vjp(functools.partial(depthwise_plain, stride=stride), x, kernel)[1](grad)


def shifted_bwd(x: jax.Array, kernel: jax.Array, grad: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """The gradients of x and kernel as shifted multiply-adds."""
    return shifted(*_transposed(x, kernel, grad, stride), 1), _kernel_grad(x, kernel, grad, stride)


def _onednn_bwd(x: jax.Array, kernel: jax.Array, grad: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """The gradient of x for oneDNN, which XLA gives no kernel that it sees to be reversed; that of kernel, shifted."""
    spread, flipped = _transposed(x, kernel, grad, stride)
    return depthwise_plain(spread, lax.optimization_barrier(flipped), 1), _kernel_grad(x, kernel, grad, stride)


def _transposed(x: jax.Array, kernel: jax.Array, grad: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """The transposed convolution's operands: the gradient spread over the grid of x, and the flipped kernel."""
    edges = [
        (0, n - (stride * (out - 1) + 1), stride - 1) for n, out in zip(x.shape[1:3], grad.shape[1:3], strict=True)
    ]
    return lax.pad(grad, jnp.zeros((), grad.dtype), ((0, 0, 0), *edges, (0, 0, 0))), kernel[::-1, ::-1]


def _kernel_grad(x: jax.Array, kernel: jax.Array, grad: jax.Array, stride: int) -> jax.Array:
    size = kernel.shape[0]
    grad_kernel = lax.platform_dependent(
        x,
        grad,
        cpu=functools.partial(_filter_grad_chained, size=size, stride=stride),
        default=functools.partial(_filter_grad, size=size, stride=stride),
    )
    return grad_kernel.reshape(kernel.shape).astype(kernel.dtype)


def _filter_grad(x: jax.Array, grad: jax.Array, *, size: int, stride: int) -> jax.Array:
    """The gradient of each tap's weight: its view of x times the gradient, summed over all pixels; [n², C]."""
    products = (tap.astype(jnp.float32) * grad.astype(jnp.float32) for tap in _taps(x, size, stride))
    return jnp.stack([product.sum(axis=(0, 1, 2)) for product in products])


def _filter_grad_chained(x: jax.Array, grad: jax.Array, *, size: int, stride: int) -> jax.Array:
    """The same sums as `_filter_grad`: over the batch by a chain of elementwise adds, then over rows and columns.

    XLA:CPU does not vectorize the plain reduction (benchmarks/NOTES.md). The barriers keep it from recomputing `grad`
    for each tap and from merging the two sums again. The loop over the taps compiles one kernel instead of n².
    """
    x, grad = lax.optimization_barrier((x.astype(jnp.float32), grad.astype(jnp.float32)))
    x = _pad_pixels(x, size // 2)
    batch, out_h, out_w, features = grad.shape
    view_hw = stride * (out_h - 1) + 1, stride * (out_w - 1) + 1
    num_links = num_parts(batch)  # link b holds images b, b + num_links, …; the chain adds the links elementwise

    def add_tap(tap: jax.Array, rows: jax.Array) -> jax.Array:
        view = lax.dynamic_slice(x, (0, tap // size, tap % size, 0), (batch, *view_hw, features))
        products = view[:, ::stride, ::stride] * grad
        images = functools.reduce(operator.add, [products[b::num_links] for b in range(num_links)])
        return lax.dynamic_update_index_in_dim(rows, images, tap, axis=0)

    # Every row is overwritten. Zeros would be made at the program's start, and held until this loop (NOTES.md).
    start = jnp.broadcast_to(grad[0, 0, 0, 0], (size * size, batch // num_links, out_h, out_w, features))
    rows = lax.optimization_barrier(lax.fori_loop(0, size * size, add_tap, start))
    return rows.sum(axis=(1, 2, 3))


def _taps(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """The size² shifted views of [B, H, W, C], padded, that the taps of a filter see; row-major."""
    last_h, last_w = (stride * ((n - 1) // stride) + 1 for n in x.shape[1:3])
    x = _pad_pixels(x, size // 2)
    return [x[:, i : i + last_h : stride, j : j + last_w : stride] for i in range(size) for j in range(size)]


def _pad_pixels(x: jax.Array, pad: int) -> jax.Array:
    """Adds `pad` zeros around each image. The barrier keeps XLA:CPU from recomputing x for the middle tap's view."""
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)
