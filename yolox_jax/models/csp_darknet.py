"""CSPDarknet, the backbone of YOLOX-nano to -x."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolox_jax.models.blocks import BlockConfig, ConvBlock, CSPLayer, Sequential, SPPBottleneck, spatial_block
from yolox_jax.models.folding import BLOCK

_MAX_FOLDED = 32  # features of the stem: folded they fill a TPU's 128 lanes


class Focus(nn.Module):
    """Every 2×2 pixels become one of four times the channels, then a 3×3 ConvBlock."""

    features: int
    config: BlockConfig

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, train: bool) -> jax.Array:
        batch, height, width, channels = x_BHWC.shape
        # Column before row: the reference's order is top left, bottom left, top right, bottom right.
        if self.config.folded:  # at once, since transposing an image is dear on a TPU
            x = x_BHWC.reshape(batch, height // 4, 2, 2, width // 4, 2, 2, channels).transpose(0, 1, 4, 6, 3, 7, 2, 5)
            x = x.reshape(batch, height // 4, width // 4, 4 * channels * BLOCK)
        else:
            x = x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 4, 2, 5)
            x = x.reshape(batch, height // 2, width // 2, 4 * channels)
        return ConvBlock(self.features, 3, 1, self.config, name="conv")(x, train)


class CSPDarknet(nn.Module):
    """Images [B, H, W, 3] to features at stride 8, 16 and 32, with 4, 8 and 16 times `base_features` channels.

    Source: the reference's yolox/models/darknet.py.
    """

    base_features: int
    base_depth: int
    config: BlockConfig

    @property
    def folds(self) -> bool:
        """Whether the stem and the first stage, whose channels are few, work on folded arrays.

        In bfloat16, which stands for a TPU; a GPU has no lanes to fill and would do four times the work. The grid of the
        first stage must be of whole blocks, which that of any image is.
        """
        for_tpu = self.config.dtype == jnp.bfloat16 and jax.default_backend() != "gpu"
        return for_tpu and not self.config.depthwise and self.base_features <= _MAX_FOLDED

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        width, depth, config = self.base_features, self.base_depth, self.config

        def stage(name: str, features: int, depth: int, config: BlockConfig, unfolds: bool = False) -> nn.Module:
            down: Callable[..., nn.Module] = functools.partial(spatial_block, features, 2, config)
            if unfolds:
                down = functools.partial(ConvBlock, features, 3, 2, config, unfolds=True)
            return Sequential((down, functools.partial(CSPLayer, features, depth, True, config)), name=name)

        fine = dataclasses.replace(config, folded=self.folds)
        x = Focus(width, fine, name="stem")(x, train)
        x = stage("dark2", 2 * width, depth, fine)(x, train)
        stride8 = stage("dark3", 4 * width, 3 * depth, config, unfolds=self.folds)(x, train)
        stride16 = stage("dark4", 8 * width, 3 * depth, config)(stride8, train)
        dark5 = (
            functools.partial(spatial_block, 16 * width, 2, config),
            functools.partial(SPPBottleneck, 16 * width, config),
            functools.partial(CSPLayer, 16 * width, depth, False, config),
        )
        stride32 = Sequential(dark5, name="dark5")(stride16, train)
        return stride8, stride16, stride32
