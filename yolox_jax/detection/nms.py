"""Non-maximum suppression with fixed shapes, for one image."""

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.boxes import pairwise_iou
from yolox_jax.detection.kernels.leading_part import of_leading_part

_TINY = 1e-9  # square pixels


def keep_mask(
    boxes_xyxy_N4: jax.Array, label_N: jax.Array, mask_N: jax.Array, iou: float, cut_N: jax.Array | None = None
) -> jax.Array:
    """True [N] if greedy class-aware NMS keeps the box. The boxes must be sorted, best score first.

    A box is suppressed if a kept, better box of its class overlaps it by more than `iou`, as in torchvision's
    batched_nms. The greedy result is the only fixed point of that rule, so the rule is applied to all boxes at once
    until nothing changes: one round for each link of the longest chain of suppressions, about ten in practice. Memory
    is O(N²).

    For a box in `cut_N`, which may show only part of its object, overlap is the intersection's share of its own area,
    not IoU.
    """

    def keep(arrays: tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]) -> jax.Array:
        return _keep_mask(*arrays, iou)

    return of_leading_part(keep, (boxes_xyxy_N4, label_N, mask_N, cut_N), mask_N)


def _keep_mask(
    boxes_xyxy_N4: jax.Array, label_N: jax.Array, mask_N: jax.Array, cut_N: jax.Array | None, iou: float
) -> jax.Array:
    """Computes `keep_mask` with every box as a row and a column."""
    iou_NN = pairwise_iou(boxes_xyxy_N4, boxes_xyxy_N4)
    if cut_N is not None:
        area_N = (boxes_xyxy_N4[:, 2:] - boxes_xyxy_N4[:, :2]).prod(axis=1)
        shared_NN = iou_NN / (1 + iou_NN) * (area_N[:, None] + area_N[None, :])
        iou_NN = jnp.where(cut_N[None, :], shared_NN / jnp.maximum(area_N, _TINY)[None, :], iou_NN)
    overlap_NN = iou_NN > iou
    same_label_NN = label_N[:, None] == label_N[None, :]
    better_NN = jnp.triu(jnp.ones_like(overlap_NN), k=1)  # the row is better than the column
    suppresses_NN = overlap_NN & same_label_NN & better_NN

    def apply_rule(keep_N: jax.Array) -> jax.Array:
        return mask_N & ~(suppresses_NN & keep_N[:, None]).any(axis=0)

    def changed(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        before_N, after_N = carry
        return (before_N != after_N).any()

    def step(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return carry[1], apply_rule(carry[1])

    return lax.while_loop(changed, step, (mask_N, apply_rule(mask_N)))[1]
