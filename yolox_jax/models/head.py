"""The decoupled head: one branch predicts the class, the other the box and the objectness."""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolox_jax.models import initial
from yolox_jax.models.blocks import BlockConfig, ConvBlock, Sequential, spatial_block
from yolox_jax.models.layers import Conv
from yolox_jax.types import Predictions

# Every probability starts at 0.01, so that the many negatives do not dominate the first steps (RetinaNet, section 3.3).
_PRIOR_PROB = 0.01
_prior_bias = initial.constant(-math.log((1 - _PRIOR_PROB) / _PRIOR_PROB))


class PerLevel(nn.Module):
    """One block per level, each with its own parameters; named "0", "1", "2" as in torch.nn.ModuleList."""

    block: Callable[..., nn.Module]  # called with name=

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], *args: bool) -> list[jax.Array]:
        return [self.block(name=str(number))(level, *args) for number, level in enumerate(levels)]


class Head(nn.Module):
    """Features at stride 8, 16 and 32 to raw predictions for every anchor point.

    Source: the reference's YOLOXHead in yolox/models/yolo_head.py; YOLOX section 2.3.
    """

    num_classes: int
    features: int  # channels of both branches
    config: BlockConfig

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], train: bool) -> Predictions:
        stem = functools.partial(ConvBlock, self.features, 1, 1, self.config)
        spatial = functools.partial(spatial_block, self.features, 1, self.config)
        branch = functools.partial(Sequential, (spatial, spatial))
        # The prediction layers always compute in float32: a box offset needs more than bfloat16's eight bits.
        box_layer = functools.partial(Conv, 4, bias_init=initial.uniform(fan_in=self.features))
        obj_layer = functools.partial(Conv, 1, bias_init=_prior_bias)
        cls_layer = functools.partial(Conv, self.num_classes, bias_init=_prior_bias)

        levels = PerLevel(stem, name="stems")(levels, train)
        cls_levels = PerLevel(branch, name="cls_convs")(levels, train)
        box_levels = PerLevel(branch, name="reg_convs")(levels, train)
        return Predictions(
            box_deltas=_join_levels(PerLevel(box_layer, name="reg_preds")(box_levels)),
            obj_logits=_join_levels(PerLevel(obj_layer, name="obj_preds")(box_levels))[..., 0],
            cls_logits=_join_levels(PerLevel(cls_layer, name="cls_preds")(cls_levels)),
        )


def _join_levels(levels: Sequence[jax.Array]) -> jax.Array:
    """Joins one array [B, h, w, n] per level into [B, A, n], row-major inside a level."""
    return jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in levels], axis=1)
