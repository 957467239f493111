"""The blocks that all networks are made of.

Every module and parameter has the reference's name (yolox/models/network_blocks.py), so that weights/official.py can
map a checkpoint by joining paths.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolox_jax.compiler_options import CpuKernels
from yolox_jax.models.kernels.pooling import max_pool
from yolox_jax.models.kernels.silu import silu
from yolox_jax.models.kernels.space_to_depth import Layout
from yolox_jax.models.layers import BatchNorm, Conv

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": silu,
    "leaky_relu": functools.partial(nn.leaky_relu, negative_slope=0.1),
}


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """The settings that all blocks of one network share."""

    act: str = "silu"  # a key of ACTIVATIONS
    depthwise: bool = False  # 3×3 convolutions become depthwise 3×3 and 1×1 (YOLOX-nano)
    dtype: jnp.dtype = jnp.float32  # the compute dtype; parameters and statistics are float32
    bn_axis: str | None = None  # the mapped axis whose devices share BatchNorm's statistics; None: each has its own
    layout: Layout = "plain"  # of the arrays between blocks (kernels/space_to_depth.py)
    cpu_kernels: CpuKernels = "xla"  # for which a CPU's form of a convolution is chosen (kernels/onednn.py)


class ConvBlock(nn.Module):
    """Convolution, BatchNorm, activation: the reference's BaseConv.

    If the convolution has a bias, BatchNorm has been folded into it (folding.py), and only predicts.
    """

    features: int
    kernel_size: int
    stride: int
    config: BlockConfig
    depthwise: bool = False
    in_layout: Layout | None = None  # of the input, if it is not config.layout

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        dtype, layout = self.config.dtype, self.config.layout
        in_layout = self.in_layout or layout
        conv = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.depthwise,
            dtype=dtype,
            in_layout=in_layout,
            out_layout=layout,
            cpu_kernels=self.config.cpu_kernels,
            name="conv",
        )
        x, activation = conv(x), ACTIVATIONS[self.config.act]
        if not train and conv.has_variable("params", "bias"):  # BatchNorm has been folded into it
            return activation(x)
        return BatchNorm(dtype, self.config.bn_axis, layout, activation, name="bn")(x, train)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the result for an input of this shape."""
        layouts = self.in_layout or self.config.layout, self.config.layout
        in_side, out_side = (2 if layout == "space_to_depth" else 1 for layout in layouts)  # of a cell, in pixels
        batch, height, width, _ = input_shape
        out_hw = (-(-side * in_side // (self.stride * out_side)) for side in (height, width))
        return batch, *out_hw, self.features * out_side**2


class DepthwiseBlock(nn.Module):
    """A depthwise 3×3 ConvBlock and a 1×1 one: the reference's DWConv."""

    features: int
    stride: int
    config: BlockConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = ConvBlock(x.shape[-1], 3, self.stride, self.config, depthwise=True, name="dconv")(x, train)
        return ConvBlock(self.features, 1, 1, self.config, name="pconv")(x, train)


def spatial_block(
    features: int, stride: int, config: BlockConfig, name: str, in_layout: Layout | None = None
) -> nn.Module:
    """The network's 3×3 block: dense, or depthwise if the config says so."""
    if config.depthwise:
        return DepthwiseBlock(features, stride, config, name=name)
    return ConvBlock(features, 3, stride, config, in_layout=in_layout, name=name)


class Sequential(nn.Module):
    """Applies blocks in turn; named "0", "1", … as in torch.nn.Sequential."""

    blocks: tuple[Callable[..., nn.Module], ...]  # each called with name=

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for number, block in enumerate(self.blocks):
            x = block(name=str(number))(x, train)
        return x


class Bottleneck(nn.Module):
    """1×1 then 3×3, with an optional shortcut around both."""

    features: int
    shortcut: bool
    config: BlockConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = ConvBlock(self.features, 1, 1, self.config, name="conv1")(x, train)
        y = spatial_block(self.features, 1, self.config, name="conv2")(y, train)
        return x + y if self.shortcut else y


class CSPLayer(nn.Module):
    """Two 1×1 branches of half the channels: one passes through `depth` bottlenecks, the other around them."""

    features: int
    depth: int
    shortcut: bool
    config: BlockConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        hidden = self.features // 2
        bottleneck = functools.partial(Bottleneck, hidden, self.shortcut, self.config)
        through = ConvBlock(hidden, 1, 1, self.config, name="conv1")(x, train)
        around = ConvBlock(hidden, 1, 1, self.config, name="conv2")(x, train)
        through = Sequential((bottleneck,) * self.depth, name="m")(through, train)
        x = jnp.concatenate([through, around], axis=-1)
        return ConvBlock(self.features, 1, 1, self.config, name="conv3")(x, train)


class SPPBottleneck(nn.Module):
    """Spatial pyramid pooling: halves the channels and appends the maxima over 5×5, 9×9 and 13×13 neighborhoods."""

    features: int
    config: BlockConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = ConvBlock(x.shape[-1] // 2, 1, 1, self.config, name="conv1")(x, train)
        pyramid = [x]
        for _ in range(3):  # a 5×5 maximum of a 5×5 maximum is a 9×9 one, the next is 13×13
            pyramid.append(max_pool(pyramid[-1], 5))
        return ConvBlock(self.features, 1, 1, self.config, name="conv2")(jnp.concatenate(pyramid, axis=-1), train)


def upsample2(x_BHWC: jax.Array) -> jax.Array:
    """Each pixel becomes 2×2: [B, H, W, C] to [B, 2H, 2W, C]."""
    batch, height, width, features = x_BHWC.shape
    x = jnp.broadcast_to(x_BHWC[:, :, None, :, None], (batch, height, 2, width, 2, features))
    return x.reshape(batch, 2 * height, 2 * width, features)
