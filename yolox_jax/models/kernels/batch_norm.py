"""Batch normalization: the formulas, then a form whose backward pass reads each array as few times as it can.

`scale_and_shift` and `normalize` also take x in the space-to-depth layout: the length of `scale_C` is the number of
channels, whatever the shape of x.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import jaxlib.version
from jax import lax

# Before, XLA:CPU adds up all squares of a channel in one row, which loses digits that E[x²] − E[x]² needs in float32.
_SUMS_IN_PARTS = jaxlib.version.__version_info__ >= (0, 10, 2)

Activation = Callable[[jax.Array], jax.Array]


def normalize_plain(
    x_BHWC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, epsilon: float, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each channel by its own mean and biased variance; returns y in float32, mean [C] and variance [C].

    If `axis_name` names a mapped axis, mean and variance are those of all its devices.
    """
    x = x_BHWC.astype(jnp.float32)
    across = (lambda value_C: value_C) if axis_name is None else functools.partial(lax.pmean, axis_name=axis_name)
    mean_C = across(x.mean(axis=(0, 1, 2)))
    var_C = across(jnp.square(x - mean_C[None, None, None]).mean(axis=(0, 1, 2)))
    return scale_and_shift(x, mean_C, var_C, scale_C, bias_C, epsilon), mean_C, var_C


def scale_and_shift(
    x_BHWC: jax.Array, mean_C: jax.Array, var_C: jax.Array, scale_C: jax.Array, bias_C: jax.Array, epsilon: float
) -> jax.Array:
    """Normalizes by given statistics, as in inference: (x − mean) / √(var + epsilon) · scale + bias, in float32."""
    factor_C = scale_C * lax.rsqrt(var_C + epsilon)
    mean, factor, bias = (spread(value_C, x_BHWC) for value_C in (mean_C, factor_C, bias_C))
    return (x_BHWC.astype(jnp.float32) - mean) * factor + bias


def no_activation(y: jax.Array) -> jax.Array:
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def normalize(
    x_BHWC: jax.Array,
    scale_C: jax.Array,
    bias_C: jax.Array,
    epsilon: float,
    axis_name: str | None = None,
    dtype: jnp.dtype = jnp.float32,
    activation: Activation = no_activation,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes `normalize_plain`, with the activation of y in `dtype`. No gradient flows from the returned statistics.

    The gradient is written out because autodiff would reduce each array twice as often.
    """
    return _normalize_fwd(x_BHWC, scale_C, bias_C, epsilon, axis_name, dtype, activation)[0]


def num_values(x_BHWC: jax.Array, num_channels: int, axis_name: str | None) -> int:
    """The number of values from which the statistics of one channel are computed."""
    num_devices = 1 if axis_name is None else lax.axis_size(axis_name)
    return num_devices * (x_BHWC.size // num_channels)


def spread(value_C: jax.Array, x_BHWC: jax.Array) -> jax.Array:
    """One number per channel, shaped to broadcast against x in either layout."""
    pixels = x_BHWC.shape[-1] // len(value_C)
    return (value_C if pixels == 1 else jnp.repeat(value_C, pixels))[None, None, None]


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6), inline=True)
def _normalize_fwd(
    x_BHWC: jax.Array,
    scale_C: jax.Array,
    bias_C: jax.Array,
    epsilon: float,
    axis_name: str | None,
    dtype: jnp.dtype,
    activation: Activation,
) -> tuple:
    mean_C, var_C = _moments(x_BHWC, len(scale_C))
    if axis_name is not None:
        # From each device's own moments, so that devices whose means differ lose no digits to cancellation.
        mean_NC, var_NC = lax.all_gather((mean_C, var_C), axis_name)
        mean_C = mean_NC.mean(axis=0)
        var_C = (var_NC + jnp.square(mean_NC - mean_C[None])).mean(axis=0)
    per_std_C = lax.rsqrt(var_C + epsilon)
    centered = x_BHWC.astype(jnp.float32) - spread(mean_C, x_BHWC)
    y = centered * spread(scale_C * per_std_C, x_BHWC) + spread(bias_C, x_BHWC)
    y = y.astype(dtype)
    # What the platform's gradient does not use of this is never written.
    return (activation(y), mean_C, var_C), (x_BHWC, scale_C, bias_C, mean_C, per_std_C, y)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), inline=True)
def _normalize_bwd(
    epsilon: float, axis_name: str | None, dtype: jnp.dtype, activation: Activation, saved: tuple, gradients: tuple
) -> tuple[jax.Array, jax.Array, jax.Array]:
    grad, _, _ = gradients
    apart, joint = (functools.partial(form, axis_name, activation) for form in (_apart_bwd, _joint_bwd))
    return lax.platform_dependent(saved, grad, cuda=joint, default=apart)


normalize.defvjp(_normalize_fwd, _normalize_bwd)


def _apart_bwd(
    axis_name: str | None, activation: Activation, saved: tuple, grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradient of the activation, then that of BatchNorm."""
    *of_norm, y = saved
    (grad_y,) = jax.vjp(activation, y)[1](grad)
    return _gradients(of_norm, grad_y.astype(jnp.float32), axis_name)


def _joint_bwd(
    axis_name: str | None, activation: Activation, saved: tuple, grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes `_apart_bwd` without an array for y or its gradient; BatchNorm's gradient uses the latter twice.

    On an NVIDIA GPU, XLA would write the gradient of y in float32 (benchmarks/NOTES.md).
    """
    *of_norm, y = saved
    x_BHWC, scale_C, bias_C, _, per_std_C = of_norm
    factor, bias = spread(scale_C * per_std_C, x_BHWC), spread(bias_C, x_BHWC)

    def through_activation(centered: jax.Array, grad: jax.Array) -> jax.Array:
        (grad_y,) = jax.vjp(activation, (centered * factor + bias).astype(y.dtype))[1](grad)
        return grad_y.astype(jnp.float32)

    return _gradients(of_norm, grad, axis_name, through_activation)


def _gradients(
    saved: Sequence[jax.Array],
    grad: jax.Array,
    axis_name: str | None,
    gradient_of_y: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of x, scale and bias.

    `grad` is that of y or, if `gradient_of_y` is given, what this function of (x − mean, grad) computes it from, anew
    at each use.
    """
    x_BHWC, scale_C, _, mean_C, per_std_C = saved

    def operands(x: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        centered = x.astype(jnp.float32) - spread(mean_C, x)
        return centered, grad if gradient_of_y is None else gradient_of_y(centered, grad)

    centered, grad_y = operands(x_BHWC, grad)
    grad_bias_C = _sum(grad_y, len(scale_C))
    # Of x, not of x - mean: XLA:CPU would keep that array from the forward pass, beside x (benchmarks/NOTES.md).
    sum_along_x_C = _sum(grad_y * x_BHWC.astype(jnp.float32), len(scale_C))
    grad_scale_C = (sum_along_x_C - mean_C * grad_bias_C) * per_std_C
    if gradient_of_y is not None:  # the barrier keeps XLA from writing what both uses have in common
        x_BHWC, grad, grad_bias_C, grad_scale_C = lax.optimization_barrier((x_BHWC, grad, grad_bias_C, grad_scale_C))
        centered, grad_y = operands(x_BHWC, grad)
    # The gradients of scale and bias are this device's share, which the training step sums. The gradient through the
    # statistics comes from all devices.
    sum_C, sum_unit_C = grad_bias_C, grad_scale_C
    if axis_name is not None:
        sum_C, sum_unit_C = lax.psum((sum_C, sum_unit_C), axis_name)
    count = num_values(x_BHWC, len(scale_C), axis_name)
    along_centered = spread(sum_unit_C / count * per_std_C, x_BHWC)
    grad_x = grad_y - spread(sum_C / count, x_BHWC) - centered * along_centered
    grad_x = grad_x * spread(scale_C * per_std_C, x_BHWC)
    return grad_x.astype(x_BHWC.dtype), grad_scale_C, grad_bias_C


def _moments(x_BHWC: jax.Array, num_channels: int) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each channel, in float32 and, if sums are exact enough, in one pass, as in Flax.

    E[x²] − E[x]² loses digits in proportion to the squared mean of x by its variance. A second pass would have to read
    x again: a TPU computes both sums while it writes x, and XLA:CPU would write x less its mean (benchmarks/NOTES.md).
    """
    x = x_BHWC.astype(jnp.float32)
    count = x.size // num_channels
    mean_C = _sum(x, num_channels) / count
    if x_BHWC.dtype in (jnp.bfloat16, jnp.float16) or _SUMS_IN_PARTS:
        return mean_C, jnp.maximum(_sum(jnp.square(x), num_channels) / count - jnp.square(mean_C), 0.0)
    return mean_C, _sum(jnp.square(x - spread(mean_C, x)), num_channels) / count


def _sum(x_BHWC: jax.Array, num_channels: int) -> jax.Array:
    """The sum of each channel, [num_channels]; in the space-to-depth layout, over a cell's pixels too."""
    total = x_BHWC.sum(axis=(0, 1, 2))
    return total if len(total) == num_channels else total.reshape(num_channels, -1).sum(axis=1)
