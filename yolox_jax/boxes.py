"""Box formats and overlaps. Boxes are float32 pixels; the format is in each name."""

import jax
import jax.numpy as jnp


def cxcywh_to_xyxy(boxes_cxcywh: jax.Array) -> jax.Array:
    """[..., 4] centre and size to [..., 4] corners."""
    center, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return jnp.concatenate([center - size / 2, center + size / 2], axis=-1)


def xyxy_to_cxcywh(boxes_xyxy: jax.Array) -> jax.Array:
    """[..., 4] corners to [..., 4] centre and size."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def pairwise_iou(boxes_xyxy_M4: jax.Array, boxes_xyxy_N4: jax.Array) -> jax.Array:
    """IoU of every box of one set with every box of the other, [M, N]; 0 where both are empty.

    Works coordinate by coordinate: no [M, N, 2] array is made.
    """
    x1_M1, y1_M1, x2_M1, y2_M1 = (boxes_xyxy_M4[:, None, i] for i in range(4))
    x1_1N, y1_1N, x2_1N, y2_1N = (boxes_xyxy_N4[None, :, i] for i in range(4))
    width_MN = jnp.minimum(x2_M1, x2_1N) - jnp.maximum(x1_M1, x1_1N)
    height_MN = jnp.minimum(y2_M1, y2_1N) - jnp.maximum(y1_M1, y1_1N)
    inter_MN = jnp.where((width_MN > 0) & (height_MN > 0), width_MN * height_MN, 0.0)
    area_M1 = (x2_M1 - x1_M1) * (y2_M1 - y1_M1)
    area_1N = (x2_1N - x1_1N) * (y2_1N - y1_1N)
    union_MN = area_M1 + area_1N - inter_MN
    return jnp.where(inter_MN > 0, inter_MN / union_MN, 0.0)
