"""CSPDarknet, the backbone of YOLOX-nano to -x."""

import dataclasses
import functools

import flax.linen as nn
import jax

from yolox_jax.models.blocks import BlockConfig, ConvBlock, CSPLayer, Sequential, SPPBottleneck, spatial_block
from yolox_jax.models.kernels.space_to_depth import Choice, Layout, choose_layout, focus


class Focus(nn.Module):
    """Turns each 2×2 pixels into one with four times the channels, then applies a 3×3 ConvBlock."""

    features: int
    config: BlockConfig

    @nn.compact
    def __call__(self, images_BHW3: jax.Array, train: bool) -> jax.Array:
        x = focus(images_BHW3.astype(self.config.dtype), self.config.layout)
        return ConvBlock(self.features, 3, 1, self.config, name="conv")(x, train)


class CSPDarknet(nn.Module):
    """A backbone whose features at stride 8, 16 and 32 have 4, 8 and 16 times `base_features` channels.

    Source: the reference's yolox/models/darknet.py.
    """

    base_features: int
    base_depth: int  # bottlenecks in the first and last stage, three times as many in the two between
    config: BlockConfig
    space_to_depth: Choice = "auto"  # of the stem and first stage, which have few channels

    @nn.compact
    def __call__(self, images_BHW3: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        width, depth, config = self.base_features, self.base_depth, self.config
        first_layout = choose_layout(self.space_to_depth, width, config.depthwise)
        first_config = dataclasses.replace(config, layout=first_layout)

        def stage(
            name: str, features: int, depth: int, config: BlockConfig, in_layout: Layout | None = None
        ) -> nn.Module:
            down = functools.partial(spatial_block, features, 2, config, in_layout=in_layout)
            return Sequential((down, functools.partial(CSPLayer, features, depth, True, config)), name=name)

        x = Focus(width, first_config, name="stem")(images_BHW3, train)
        x = stage("dark2", 2 * width, depth, first_config)(x, train)
        stride8 = stage("dark3", 4 * width, 3 * depth, config, first_layout)(x, train)
        stride16 = stage("dark4", 8 * width, 3 * depth, config)(stride8, train)
        dark5 = (
            functools.partial(spatial_block, 16 * width, 2, config),
            functools.partial(SPPBottleneck, 16 * width, config),
            functools.partial(CSPLayer, 16 * width, depth, False, config),
        )
        stride32 = Sequential(dark5, name="dark5")(stride16, train)
        return stride8, stride16, stride32
