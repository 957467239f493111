"""The neck of YOLOX-nano to -x: features flow down the pyramid, then up again."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolox_jax.models.blocks import BlockConfig, ConvBlock, CSPLayer, spatial_block, upsample2


class PAFPN(nn.Module):
    """Images to features at stride 8, 16 and 32, with the backbone's numbers of channels.

    The backbone is inside, named "backbone", as in the reference. models/yolox.py says what it must return.
    Source: the reference's yolox/models/yolo_pafpn.py.
    """

    backbone: Callable[..., nn.Module]  # called with name=
    base_depth: int  # bottlenecks in each CSPLayer
    config: BlockConfig

    @nn.compact
    def __call__(self, images_BHW3: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        config = self.config
        stride8, stride16, stride32 = self.backbone(name="backbone")(images_BHW3, train)
        narrow, middle, wide = (level.shape[-1] for level in (stride8, stride16, stride32))

        def join(name: str, features: int, *parts: jax.Array) -> jax.Array:
            layer = CSPLayer(features, self.base_depth, False, config, name=name)
            return layer(jnp.concatenate(parts, axis=-1), train)

        lateral32 = ConvBlock(middle, 1, 1, config, name="lateral_conv0")(stride32, train)
        down16 = join("C3_p4", middle, upsample2(lateral32), stride16)
        lateral16 = ConvBlock(narrow, 1, 1, config, name="reduce_conv1")(down16, train)
        out8 = join("C3_p3", narrow, upsample2(lateral16), stride8)

        up16 = spatial_block(narrow, 2, config, name="bu_conv2")(out8, train)
        out16 = join("C3_n3", middle, up16, lateral16)
        up32 = spatial_block(middle, 2, config, name="bu_conv1")(out16, train)
        out32 = join("C3_n4", wide, up32, lateral32)
        return out8, out16, out32
