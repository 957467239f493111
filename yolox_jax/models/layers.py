"""Convolution and BatchNorm, in the forms that are fast where they run, as torch defines them."""

import functools
import operator
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.models import folding

BN_EPSILON = 1e-3  # the reference sets both on every BatchNorm
BN_KEEP = 0.97  # torch's momentum 0.03 is the share of the new value

# torch's default for Conv2d, kaiming_uniform(a=√5), is U(−1/√fan_in, 1/√fan_in).
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _taps(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """The size² shifted views of a padded [B, H, W, C] that a convolution's taps see, row-major."""
    out_h, out_w = x.shape[1] // stride, x.shape[2] // stride
    pad = size // 2
    x = _pad_pixels(x, pad)
    last_h, last_w = stride * (out_h - 1) + 1, stride * (out_w - 1) + 1
    return [x[:, i : i + last_h : stride, j : j + last_w : stride] for i in range(size) for j in range(size)]


def _pad_pixels(x: jax.Array, pad: int) -> jax.Array:
    """Zeros around each image. On a CPU behind a barrier, or XLA computes the middle tap's view from x's own origin again."""
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution of [B, H, W, C] by [n, n, 1, C], padded by n // 2, as n² shifted multiply-adds.

    XLA:CPU's grouped convolution takes 41 ms where this takes 0.8 (3×3 on 8×52×52×64, 2 cores).
    """
    size = kernel.shape[0]
    products = [tap * kernel[i // size, i % size][None, None] for i, tap in enumerate(_taps(x, size, stride))]
    return functools.reduce(operator.add, products)


def _depthwise_fwd(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise_conv(x, kernel, stride), (x, kernel)


def _depthwise_bwd(stride: int, saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    # Transposed: spread the gradient to the input's grid, then correlate with the kernel turned by 180°.
    spread = lax.pad(grad, jnp.zeros((), grad.dtype), ((0, 0, 0), *((0, stride - 1, stride - 1),) * 2, (0, 0, 0)))
    grad_x = depthwise_conv(spread, kernel[::-1, ::-1], 1)
    grad_kernel = lax.platform_dependent(
        x,
        grad,
        cpu=functools.partial(_depthwise_filter_grad_chained, size=kernel.shape[0], stride=stride),
        default=functools.partial(_depthwise_filter_grad, size=kernel.shape[0], stride=stride),
    )
    return grad_x, grad_kernel.reshape(kernel.shape).astype(kernel.dtype)


_MAX_PARTS = 8


def _num_parts(batch: int) -> int:
    """In how many equal parts to write out a batch: more would only take longer to compile."""
    return max(n for n in range(1, _MAX_PARTS + 1) if batch % n == 0)


def _depthwise_filter_grad(x: jax.Array, grad: jax.Array, *, size: int, stride: int) -> jax.Array:
    products = (tap.astype(jnp.float32) * grad.astype(jnp.float32) for tap in _taps(x, size, stride))
    return jnp.stack([product.sum(axis=(0, 1, 2)) for product in products])


def _depthwise_filter_grad_chained(x: jax.Array, grad: jax.Array, *, size: int, stride: int) -> jax.Array:
    """The same sum, over the batch as one elementwise chain and then over rows and columns.

    XLA:CPU does not vectorise the plain reduction: 21 ms against 1.8 (3×3 on 8×52×52×64, 2 cores). The barriers keep
    it from computing `grad` anew for each tap and from joining the two sums again; the loop over the taps, whose
    views are those of `_taps`, is one kernel to compile instead of nine.
    """
    x, grad = lax.optimization_barrier((x.astype(jnp.float32), grad.astype(jnp.float32)))
    x = _pad_pixels(x, size // 2)
    batch, out_h, out_w, features = grad.shape
    view_hw = stride * (out_h - 1) + 1, stride * (out_w - 1) + 1
    # Every `links`-th image together.
    links = _num_parts(batch)

    def sum_images(tap: jax.Array) -> jax.Array:
        view = lax.dynamic_slice(x, (0, tap // size, tap % size, 0), (batch, *view_hw, features))
        products = view[:, ::stride, ::stride] * grad
        return functools.reduce(operator.add, [products[b::links] for b in range(links)])

    rows = lax.optimization_barrier(lax.map(sum_images, jnp.arange(size * size)))
    return rows.sum(axis=(1, 2, 3))


depthwise_conv.defvjp(_depthwise_fwd, _depthwise_bwd)


@jax.custom_vjp
def pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """1×1 convolution of [B, H, W, C] by [C, n] as a matrix product.

    5.4 ms against 10.9 as a convolution on XLA:CPU (4×80×80×128), the same on a TPU. Of the gradient that autodiff gives,
    XLA:CPU computes the kernel's from a transposed copy.
    """
    return x @ kernel


def _pointwise_bwd(saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    grad_kernel = jnp.einsum("nc,nd->cd", x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1]))
    return grad @ kernel.T, grad_kernel


pointwise_conv.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _pointwise_bwd)


def _conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(kernel.shape[0] // 2,) * 2] * 2,  # 'SAME' would pad only one side at stride 2
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def dense_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution of [B, H, W, C] by [n, n, C, D], padded by n // 2 on every side."""
    return _conv(x, kernel, stride)


_MANY_PIXELS = 320 * 320


def _dense_bwd(stride: int, saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of large images one by one on a CPU, where XLA takes one core for all at once.

    Both gradients of 3×3, stride 2, on 4×320×320×32 to 64: 344 ms against 229, the stem's filter 157 against 81 (2 cores). At
    208×208 it is the other way: the filter's alone 28 ms against 33.
    """
    x, kernel = saved

    def whole(x: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(lambda x, kernel: _conv(x, kernel, stride), x, kernel)[1](grad)

    def in_parts(x: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        num_parts = _num_parts(len(x))
        pairs = [whole(*part) for part in zip(jnp.split(x, num_parts), jnp.split(grad, num_parts), strict=True)]
        return jnp.concatenate([grad_x for grad_x, _ in pairs]), functools.reduce(operator.add, [k for _, k in pairs])

    if x.shape[1] * x.shape[2] < _MANY_PIXELS:
        return whole(x, grad)
    return lax.platform_dependent(x, grad, cpu=in_parts, default=whole)


dense_conv.defvjp(lambda x, kernel, stride: (dense_conv(x, kernel, stride), (x, kernel)), _dense_bwd)


def max_pool(x_BHWC: jax.Array, size: int) -> jax.Array:
    """The maximum of the size×size neighbourhood of each pixel, along rows and then along columns.

    As XLA:CPU's reduce-window, the three of the pyramid took 45 of nano's 660 ms a step, and 107 of 2,900 of s.
    """
    return _max_along(_max_along(x_BHWC, size, 2), size, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_along(x: jax.Array, size: int, axis: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _views_along(x, size, axis, -jnp.inf))


def _max_bwd(size: int, axis: int, saved: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array]:
    """To the first of equal ones, as torch: along columns and then along rows, that is the first by rows."""
    x, largest = saved
    not_yet, shares = jnp.ones_like(x, bool), []
    for view in _views_along(x, size, axis, -jnp.inf):
        is_first = not_yet & (view == largest)
        not_yet &= ~is_first
        shares.append(jnp.where(is_first, grad, 0))
    # What came from `offset` after a pixel goes back there.
    back = [_views_along(share, size, axis, 0)[size - 1 - i] for i, share in enumerate(shares)]
    return (functools.reduce(operator.add, back),)


def _max_fwd(x: jax.Array, size: int, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest = _max_along(x, size, axis)
    return largest, (x, largest)


_max_along.defvjp(_max_fwd, _max_bwd)


def _views_along(x: jax.Array, size: int, axis: int, fill: float) -> list[jax.Array]:
    """x as seen from size // 2 before each place to as much after it."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (size // 2, size // 2)
    padded = jnp.pad(x, widths, constant_values=fill)
    return [lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(size)]


@jax.custom_vjp
def silu(x: jax.Array) -> jax.Array:
    """x·sigmoid(x), whose gradient is computed from x alone: autodiff keeps the sigmoid, one more array to write and read."""
    return x * jax.nn.sigmoid(x)


def _silu_bwd(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    rest = jax.nn.sigmoid(-x)  # 1 − sigmoid(x): with sigmoid(x) itself, XLA would keep that of the forward pass
    return (grad * ((1 - rest) * (1 + x * rest)),)


silu.defvjp(lambda x: (silu(x), x), _silu_bwd)


class Conv(nn.Module):
    """A convolution without BatchNorm, padded by kernel_size // 2 on every side as torch pads."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    depthwise: bool = False
    bias_init: Callable[..., jax.Array] | None = None  # no bias where None
    dtype: jnp.dtype = jnp.float32
    fold: str = ""  # where the input is folded (folding.py): "stays", or "ends" with this convolution, at stride 2

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        size, in_features = self.kernel_size, x_BHWC.shape[-1]
        if self.fold:
            in_features //= folding.BLOCK
        shape = (size, size, 1 if self.depthwise else in_features, self.features)
        kernel = self.param("kernel", kernel_init, shape, jnp.float32).astype(self.dtype)
        x_BHWC = x_BHWC.astype(self.dtype)
        if self.fold:
            y = _folded_conv(x_BHWC, kernel, self.stride, self.fold)
        elif self.depthwise:
            y = depthwise_conv(x_BHWC, kernel, self.stride)
        elif size == 1 and self.stride == 1:
            y = pointwise_conv(x_BHWC, kernel[0, 0])
        else:
            y = dense_conv(x_BHWC, kernel, self.stride)
        if self.bias_init is not None:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None]
        return y


def _folded_conv(x_BHWC: jax.Array, kernel: jax.Array, stride: int, fold: str) -> jax.Array:
    if fold == "ends":
        kernel, padding = folding.unfolding_kernel(kernel)
        stride //= 2
    else:
        kernel, padding = folding.folded_kernel(kernel, stride)
    return lax.conv_general_dilated(
        x_BHWC, kernel, (stride, stride), [padding] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class BatchNorm(nn.Module):
    """torch's BatchNorm2d: unlike Flax's, the running variance is the unbiased one.

    In training it sees the images of this device or, where `axis_name` names a mapped axis, of all its devices
    (torch's SyncBatchNorm).
    """

    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    folded: bool = False  # the input is (folding.py)

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, train: bool) -> jax.Array:
        shape = (x_BHWC.shape[-1] // (folding.BLOCK if self.folded else 1),)
        scale_C = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias_C = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean_C = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var_C = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

        if not train:
            factor_C = scale_C * lax.rsqrt(running_var_C.value + BN_EPSILON)
            mean, factor, bias = (_spread(value_C, x_BHWC) for value_C in (running_mean_C.value, factor_C, bias_C))
            return ((x_BHWC.astype(jnp.float32) - mean) * factor + bias).astype(self.dtype)

        y_BHWC, mean_C, var_C = normalize(x_BHWC, scale_C, bias_C, self.axis_name)
        if not self.is_initializing():
            count = _count(x_BHWC, shape[0], self.axis_name)
            unbiased_C = var_C * (count / max(count - 1, 1))
            running_mean_C.value = BN_KEEP * running_mean_C.value + (1 - BN_KEEP) * mean_C
            running_var_C.value = BN_KEEP * running_var_C.value + (1 - BN_KEEP) * unbiased_C
        return y_BHWC.astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
    x_BHWC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each channel by its own mean and (biased) variance: y as float32, mean [C], variance [C].

    The statistics are those of all devices of the mapped axis `axis_name`, where given. No gradient flows from them. The
    gradient is written out because autodiff reduces each array twice as often as needed.
    """
    return _normalize_fwd(x_BHWC, scale_C, bias_C, axis_name)[0]


def _moments(x_BHWC: jax.Array, num_channels: int) -> tuple[jax.Array, jax.Array]:
    """Mean and (biased) variance of each channel, in float32.

    In one pass for bfloat16: there, E[x²] − E[x]² in float32 loses fewer digits than x has lost already, and a TPU takes
    both sums while it writes x, where a second pass would read it again.
    """
    x = x_BHWC.astype(jnp.float32)
    count = x.size // num_channels
    mean_C = _sum(x, num_channels) / count
    if x_BHWC.dtype == jnp.bfloat16:
        return mean_C, jnp.maximum(_sum(jnp.square(x), num_channels) / count - jnp.square(mean_C), 0.0)
    return mean_C, _sum(jnp.square(x - _spread(mean_C, x)), num_channels) / count


def _sum(x_BHWC: jax.Array, num_channels: int) -> jax.Array:
    """The sum of each channel, [num_channels]; of a folded array, over its blocks too."""
    total = x_BHWC.sum(axis=(0, 1, 2))
    return total if len(total) == num_channels else total.reshape(num_channels, -1).sum(axis=1)


def _spread(value_C: jax.Array, x_BHWC: jax.Array) -> jax.Array:
    """A number of each channel against x, which may be folded."""
    pixels = x_BHWC.shape[-1] // len(value_C)
    return (value_C if pixels == 1 else jnp.repeat(value_C, pixels))[None, None, None]


def _normalize_fwd(x_BHWC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, axis_name: str | None) -> tuple:
    mean_C, var_C = _moments(x_BHWC, len(scale_C))
    if axis_name is not None:
        # From each device's own moments, not from E[x²] − E[x]², whose digits cancel.
        mean_NC, var_NC = lax.all_gather((mean_C, var_C), axis_name)
        mean_C = mean_NC.mean(axis=0)
        var_C = (var_NC + jnp.square(mean_NC - mean_C[None])).mean(axis=0)
    per_std_C = lax.rsqrt(var_C + BN_EPSILON)
    centred = x_BHWC.astype(jnp.float32) - _spread(mean_C, x_BHWC)
    y = centred * _spread(scale_C * per_std_C, x_BHWC) + _spread(bias_C, x_BHWC)
    return (y, mean_C, var_C), (x_BHWC, scale_C, mean_C, per_std_C)


def _normalize_bwd(axis_name: str | None, saved: tuple, gradients: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_BHWC, scale_C, mean_C, per_std_C = saved
    grad, _, _ = gradients
    # Not yet divided by the deviation: XLA:CPU writes what it multiplies and sums, and this it has from the variance.
    centred = x_BHWC.astype(jnp.float32) - _spread(mean_C, x_BHWC)
    grad_bias_C = _sum(grad, len(scale_C))
    grad_scale_C = _sum(grad * centred, len(scale_C)) * per_std_C
    # The parameters get this device's share, which the step sums; what moves with the statistics is all devices'.
    sum_C, sum_unit_C = grad_bias_C, grad_scale_C
    if axis_name is not None:
        sum_C, sum_unit_C = lax.psum((sum_C, sum_unit_C), axis_name)
    count = _count(x_BHWC, len(scale_C), axis_name)
    along_centred = _spread(sum_unit_C / count * per_std_C, x_BHWC)
    grad_x = grad - _spread(sum_C / count, x_BHWC) - centred * along_centred
    grad_x = grad_x * _spread(scale_C * per_std_C, x_BHWC)
    return grad_x.astype(x_BHWC.dtype), grad_scale_C, grad_bias_C


normalize.defvjp(_normalize_fwd, _normalize_bwd)


def _count(x_BHWC: jax.Array, num_channels: int, axis_name: str | None) -> int:
    """How many values of a channel the statistics are of."""
    num_devices = 1 if axis_name is None else lax.axis_size(axis_name)
    return num_devices * (x_BHWC.size // num_channels)
