"""Darknet53, the backbone of YOLOX-Darknet53."""

import functools

import flax.linen as nn
import jax

from yolox_jax.models.blocks import BlockConfig, ConvBlock, Sequential, SPPBottleneck

_STEM_FEATURES = 32


class ResLayer(nn.Module):
    """1×1 to half the channels, 3×3 back to all, and a shortcut around both."""

    config: BlockConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features = x.shape[-1]
        y = ConvBlock(features // 2, 1, 1, self.config, name="layer1")(x, train)
        y = ConvBlock(features, 3, 1, self.config, name="layer2")(y, train)
        return x + y


class Darknet53(nn.Module):
    """A backbone whose features at stride 8, 16 and 32 have 256, 512 and 512 channels.

    Source: the reference's Darknet (depth 53) in yolox/models/darknet.py.
    """

    config: BlockConfig

    @nn.compact
    def __call__(self, images_BHW3: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        block = functools.partial(ConvBlock, config=self.config)

        def group(features: int, depth: int) -> tuple:
            down = functools.partial(block, features, 3, 2)
            return (down, *(functools.partial(ResLayer, self.config),) * depth)

        first = functools.partial(block, _STEM_FEATURES, 3, 1)
        x = Sequential((first, *group(64, 1)), name="stem")(images_BHW3, train)
        x = Sequential(group(128, 2), name="dark2")(x, train)
        stride8 = Sequential(group(256, 8), name="dark3")(x, train)
        stride16 = Sequential(group(512, 8), name="dark4")(stride8, train)
        spp = (
            functools.partial(block, 512, 1, 1),
            functools.partial(block, 1024, 3, 1),
            functools.partial(SPPBottleneck, 512, self.config),
            functools.partial(block, 1024, 3, 1),
            functools.partial(block, 512, 1, 1),
        )
        stride32 = Sequential((*group(1024, 4), *spp), name="dark5")(stride16, train)
        return stride8, stride16, stride32
