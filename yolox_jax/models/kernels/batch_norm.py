"""Batch normalization: the formulas, then a form whose backward pass reads each array as few times as it can.

`scale_and_shift` and `normalize` also take x in the space-to-depth layout: the length of `scale_C` is the number of
channels, whatever the shape of x.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
    x_BHWC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, epsilon: float, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes `normalize_plain`. No gradient flows from the returned statistics.

    The gradient is written out because autodiff would reduce each array twice as often.
    """
    return _normalize_fwd(x_BHWC, scale_C, bias_C, epsilon, axis_name)[0]


def num_values(x_BHWC: jax.Array, num_channels: int, axis_name: str | None) -> int:
    """The number of values from which the statistics of one channel are computed."""
    num_devices = 1 if axis_name is None else lax.axis_size(axis_name)
    return num_devices * (x_BHWC.size // num_channels)


def spread(value_C: jax.Array, x_BHWC: jax.Array) -> jax.Array:
    """One number per channel, shaped to broadcast against x in either layout."""
    pixels = x_BHWC.shape[-1] // len(value_C)
    return (value_C if pixels == 1 else jnp.repeat(value_C, pixels))[None, None, None]


def _normalize_fwd(
    x_BHWC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, epsilon: float, axis_name: str | None
) -> tuple:
    mean_C, var_C = _moments(x_BHWC, len(scale_C))
    if axis_name is not None:
        # From each device's own moments: E[x²] − E[x]² over all devices would lose digits to cancellation.
        mean_NC, var_NC = lax.all_gather((mean_C, var_C), axis_name)
        mean_C = mean_NC.mean(axis=0)
        var_C = (var_NC + jnp.square(mean_NC - mean_C[None])).mean(axis=0)
    per_std_C = lax.rsqrt(var_C + epsilon)
    centered = x_BHWC.astype(jnp.float32) - spread(mean_C, x_BHWC)
    y = centered * spread(scale_C * per_std_C, x_BHWC) + spread(bias_C, x_BHWC)
    return (y, mean_C, var_C), (x_BHWC, scale_C, mean_C, per_std_C)


def _normalize_bwd(
    epsilon: float, axis_name: str | None, saved: tuple, gradients: tuple
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_BHWC, scale_C, mean_C, per_std_C = saved
    grad, _, _ = gradients
    # Not divided by the standard deviation: XLA:CPU would write that array out, but has this one from the variance.
    centered = x_BHWC.astype(jnp.float32) - spread(mean_C, x_BHWC)
    grad_bias_C = _sum(grad, len(scale_C))
    grad_scale_C = _sum(grad * centered, len(scale_C)) * per_std_C
    # The gradients of scale and bias are this device's share, which the training step sums. The gradient through the
    # statistics comes from all devices.
    sum_C, sum_unit_C = grad_bias_C, grad_scale_C
    if axis_name is not None:
        sum_C, sum_unit_C = lax.psum((sum_C, sum_unit_C), axis_name)
    count = num_values(x_BHWC, len(scale_C), axis_name)
    along_centered = spread(sum_unit_C / count * per_std_C, x_BHWC)
    grad_x = grad - spread(sum_C / count, x_BHWC) - centered * along_centered
    grad_x = grad_x * spread(scale_C * per_std_C, x_BHWC)
    return grad_x.astype(x_BHWC.dtype), grad_scale_C, grad_bias_C


normalize.defvjp(_normalize_fwd, _normalize_bwd)


def _moments(x_BHWC: jax.Array, num_channels: int) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each channel, in float32.

    For bfloat16 and float16 in one pass: E[x²] − E[x]² in float32 loses fewer digits than x has already lost, and a TPU
    computes both sums while it writes x. A second pass would have to read x again.
    """
    x = x_BHWC.astype(jnp.float32)
    count = x.size // num_channels
    mean_C = _sum(x, num_channels) / count
    if x_BHWC.dtype in (jnp.bfloat16, jnp.float16):
        return mean_C, jnp.maximum(_sum(jnp.square(x), num_channels) / count - jnp.square(mean_C), 0.0)
    return mean_C, _sum(jnp.square(x - spread(mean_C, x)), num_channels) / count


def _sum(x_BHWC: jax.Array, num_channels: int) -> jax.Array:
    """The sum of each channel, [num_channels]; in the space-to-depth layout, over a cell's pixels too."""
    total = x_BHWC.sum(axis=(0, 1, 2))
    return total if len(total) == num_channels else total.reshape(num_channels, -1).sum(axis=1)
