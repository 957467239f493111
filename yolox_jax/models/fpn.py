"""The neck of YOLOX-Darknet53: features flow down the pyramid."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolox_jax.models.blocks import BlockConfig, ConvBlock, Sequential, upsample2
from yolox_jax.models.darknet53 import Darknet53


class FPN(nn.Module):
    """Images [B, H, W, 3] to features at stride 8, 16 and 32, with 128, 256 and 512 channels.

    Source: the reference's yolox/models/yolo_fpn.py.
    """

    config: BlockConfig

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        block = functools.partial(ConvBlock, config=self.config)
        stride8, stride16, stride32 = Darknet53(self.config, name="backbone")(images, train)

        def join(name: str, features: int, coarse: jax.Array, fine: jax.Array) -> jax.Array:
            x = block(features, 1, 1, name=f"{name}_cbl")(coarse, train)
            x = jnp.concatenate([upsample2(x), fine], axis=-1)
            squeeze = functools.partial(block, features, 1, 1)
            expand = functools.partial(block, 2 * features, 3, 1)
            return Sequential((squeeze, expand, squeeze, expand, squeeze), name=name)(x, train)

        out16 = join("out1", 256, stride32, stride16)
        out8 = join("out2", 128, out16, stride8)
        return out8, out16, stride32
