"""Convolution and BatchNorm as torch defines them, computed by kernels/."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError

from yolox_jax.compiler_options import CpuKernels
from yolox_jax.models import initial
from yolox_jax.models.kernels import batch_norm, convolution, depthwise, space_to_depth
from yolox_jax.models.kernels.space_to_depth import Layout

BN_EPSILON = 1e-3  # the reference sets both on every BatchNorm
BN_KEEP = 0.97  # 1 − torch's momentum of 0.03, which is the share of the new value


class Conv(nn.Module):
    """A convolution without BatchNorm, padded by kernel_size // 2 on every side as torch pads."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    depthwise: bool = False
    bias_init: Callable[..., jax.Array] | None = None  # None: no bias, unless the variables have one (folding.py)
    dtype: jnp.dtype = jnp.float32
    in_layout: Layout = "plain"
    out_layout: Layout = "plain"
    cpu_kernels: CpuKernels = "xla"

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        size, in_features = self.kernel_size, space_to_depth.num_channels(x_BHWC, self.in_layout)
        shape = (size, size, 1 if self.depthwise else in_features, self.features)
        if self.has_variable("params", convolution.STORED_OHWI):
            kernel = convolution.from_ohwi(self.get_variable("params", convolution.STORED_OHWI))
        else:
            kernel = _param(self, "kernel", initial.uniform(), shape)
        kernel, x_BHWC = kernel.astype(self.dtype), x_BHWC.astype(self.dtype)
        has_bias = self.bias_init is not None or self.has_variable("params", "bias")
        if self.in_layout == "space_to_depth":
            y = space_to_depth.conv(x_BHWC, kernel, self.stride, self.out_layout)
        elif self.depthwise:
            y = depthwise.depthwise_conv(x_BHWC, kernel, self.stride, self.cpu_kernels)
        elif size == 1 and self.stride == 1:
            # A GPU fuses a bias and what follows with a product; in training, without one, a convolution is better.
            pointwise = convolution.pointwise_product if has_bias else convolution.pointwise_conv
            y = pointwise(x_BHWC, kernel[0, 0])
        else:
            y = convolution.dense_conv(x_BHWC, kernel, self.stride, self.cpu_kernels)
        if has_bias:
            bias = _param(self, "bias", self.bias_init or initial.constant(0), (self.features,))
            y = (y.astype(jnp.float32) + batch_norm.spread(bias, y)).astype(self.dtype)
        return y


class BatchNorm(nn.Module):
    """torch's BatchNorm2d and the activation after it. Unlike Flax's, the running variance is the unbiased one.

    In training its statistics are those of this device's images or, if `axis_name` names a mapped axis, of the images
    of all its devices (torch's SyncBatchNorm).
    """

    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    layout: Layout = "plain"
    activation: batch_norm.Activation = batch_norm.no_activation

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, train: bool) -> jax.Array:
        channels = space_to_depth.num_channels(x_BHWC, self.layout)
        scale_C = _param(self, "scale", initial.constant(1), (channels,))
        bias_C = _param(self, "bias", initial.constant(0), (channels,))
        mean_C = self.variable("batch_stats", "mean", initial.constant(0), None, (channels,))
        var_C = self.variable("batch_stats", "var", initial.constant(1), None, (channels,))

        if not train:
            y_BHWC = batch_norm.scale_and_shift(x_BHWC, mean_C.value, var_C.value, scale_C, bias_C, BN_EPSILON)
            return self.activation(y_BHWC.astype(self.dtype))

        y_BHWC, batch_mean_C, batch_var_C = batch_norm.normalize(
            x_BHWC, scale_C, bias_C, BN_EPSILON, self.axis_name, self.dtype, self.activation
        )
        if not self.is_initializing():
            count = batch_norm.num_values(x_BHWC, channels, self.axis_name)
            unbiased_var_C = batch_var_C * (count / max(count - 1, 1))
            mean_C.value = BN_KEEP * mean_C.value + (1 - BN_KEEP) * batch_mean_C
            var_C.value = BN_KEEP * var_C.value + (1 - BN_KEEP) * unbiased_var_C
        return y_BHWC


def _param(layer: nn.Module, name: str, init: Callable[..., jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Returns `layer.param`, which would trace `init` anew to check the shape of a parameter that exists."""
    if layer.has_variable("params", name):
        existing: jax.Array = layer.get_variable("params", name)
        if existing.shape != shape:
            raise ScopeParamShapeError(name, "/".join(layer.path), existing.shape, shape)
        return existing
    return layer.param(name, init, shape, jnp.float32)
