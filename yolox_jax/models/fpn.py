"""The neck of YOLOX-Darknet53: features flow down the pyramid."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolox_jax.models.blocks import BlockConfig, ConvBlock, Sequential, upsample2


class FPN(nn.Module):
    """Images to features at stride 8 and 16, with 128 and 256 channels, and the backbone's own at stride 32.

    The backbone is inside, named "backbone", as in the reference. models/yolox.py says what it must return.
    Source: the reference's yolox/models/yolo_fpn.py.
    """

    backbone: Callable[..., nn.Module]  # called with name=
    config: BlockConfig

    @nn.compact
    def __call__(self, images_BHW3: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        block = functools.partial(ConvBlock, config=self.config)
        stride8, stride16, stride32 = self.backbone(name="backbone")(images_BHW3, train)

        def join(name: str, features: int, coarse: jax.Array, fine: jax.Array) -> jax.Array:
            x = block(features, 1, 1, name=f"{name}_cbl")(coarse, train)
            x = jnp.concatenate([upsample2(x), fine], axis=-1)
            squeeze = functools.partial(block, features, 1, 1)
            expand = functools.partial(block, 2 * features, 3, 1)
            return Sequential((squeeze, expand, squeeze, expand, squeeze), name=name)(x, train)

        out16 = join("out1", 256, stride32, stride16)
        out8 = join("out2", 128, out16, stride8)
        return out8, out16, stride32
