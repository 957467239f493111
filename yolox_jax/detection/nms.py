"""Non-maximum suppression with fixed shapes, for one image."""

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.boxes import pairwise_iou


def keep_mask(boxes_xyxy_N4: jax.Array, label_N: jax.Array, mask_N: jax.Array, iou: float) -> jax.Array:
    """True [N] where greedy class-aware NMS keeps the box; the boxes come best score first.

    A box falls if a kept, better box of its class overlaps it by more than `iou`, as in torchvision's batched_nms. The
    greedy answer is the only fixed point of that rule, so all boxes are judged at once until nothing changes: as many
    rounds as the longest chain of boxes each felling the next, about ten in practice. Memory is O(N²).
    """
    overlap_NN = pairwise_iou(boxes_xyxy_N4, boxes_xyxy_N4) > iou
    same_label_NN = label_N[:, None] == label_N[None, :]
    better_NN = jnp.triu(jnp.ones_like(overlap_NN), k=1)  # row before column
    fells_NN = overlap_NN & same_label_NN & better_NN

    def judge(keep_N: jax.Array) -> jax.Array:
        return mask_N & ~(fells_NN & keep_N[:, None]).any(axis=0)

    def changed(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        before_N, after_N = carry
        return (before_N != after_N).any()

    def step(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return carry[1], judge(carry[1])

    return lax.while_loop(changed, step, (mask_N, judge(mask_N)))[1]
