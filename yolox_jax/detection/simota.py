"""SimOTA: decides which anchor points learn which ground-truth box, with fixed shapes, for one image.

Source: YOLOX (arXiv 2107.08430) section 2.3; the reference's YOLOXHead.get_assignments and simota_matching.
"""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp

from yolox_jax.boxes import pairwise_iou
from yolox_jax.detection.kernels.argmin import argmin_rows
from yolox_jax.detection.kernels.near_anchors import max_near, over_candidates
from yolox_jax.detection.kernels.top_k import top_k
from yolox_jax.errors import UserError
from yolox_jax.types import Anchors, Assignment

_LOG_FLOOR = -100.0  # torch's binary_cross_entropy clamps log(p) here


@dataclasses.dataclass(frozen=True)
class SimOtaConfig:
    """The parameters of SimOTA; the defaults are the reference's."""

    center_radius: float = 1.5  # strides: candidates are the anchors closer than this to a box's center, in x and in y
    num_candidates: int = 10  # IoUs summed for the dynamic k, which is therefore at most this
    iou_weight: float = 3.0  # of −log(IoU) in the cost, beside the class cost
    outside_penalty: float = 1e6  # added to the cost of a box and an anchor that is not near its center
    # Anchors anywhere inside a box are candidates too, and only those both inside and near its center have no penalty:
    # the rule of the paper and of the published weights.
    in_box_candidates: bool = False

    def __post_init__(self) -> None:
        if self.num_candidates < 1:
            raise UserError(f"config.assignment.num_candidates is {self.num_candidates}", "give 1 or more")
        for name in ("center_radius", "iou_weight", "outside_penalty"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"config.assignment.{name} is {getattr(self, name)}", "give a finite number of 0 or more"
                )


@flax.struct.dataclass
class _Boxes:
    xyxy: jax.Array  # [G, 4]
    label: jax.Array  # [G]
    mask: jax.Array  # [G]


@flax.struct.dataclass
class _Predicted:
    xyxy: jax.Array  # [A, 4]
    cls_logit: jax.Array  # [A, C]
    obj_logit: jax.Array  # [A]
    anchors: Anchors


def assign(
    gt_xyxy_G4: jax.Array,
    gt_label_G: jax.Array,
    gt_mask_G: jax.Array,
    pred_xyxy_A4: jax.Array,
    cls_logit_AC: jax.Array,
    obj_logit_A: jax.Array,
    anchors: Anchors,
    config: SimOtaConfig = SimOtaConfig(),
) -> Assignment:
    """Gives every real box its k cheapest candidates, and every anchor at most one box; k is the sum of the best IoUs.

    Padding slots, where `gt_mask_G` is False, change nothing. A box with no anchor near its center (its center is far
    outside the image) is not assigned. Memory is O(G·A).
    """
    boxes = _Boxes(gt_xyxy_G4, gt_label_G, gt_mask_G)
    predicted = _Predicted(pred_xyxy_A4, cls_logit_AC, obj_logit_A, anchors)

    def assign_candidates(candidate_A: jax.Array, predicted: _Predicted) -> Assignment:
        iou_GA, cost_GA = _iou_and_cost(boxes, predicted, candidate_A, config)
        taken_GK, anchor_GK = _take_cheapest(iou_GA, cost_GA, config.num_candidates)
        return _resolve_conflicts(taken_GK, anchor_GK, iou_GA, cost_GA)

    candidate_GA, _ = _candidates(boxes, anchors, config)
    num_boxes, num_anchors = candidate_GA.shape
    max_candidates = num_anchors if config.in_box_candidates else max_near(num_boxes, num_anchors, config.center_radius)
    return over_candidates(assign_candidates, candidate_GA.any(axis=0), predicted, max_candidates)


def _candidates(boxes: _Boxes, anchors: Anchors, config: SimOtaConfig) -> tuple[jax.Array, jax.Array]:
    """Two masks [G, A]: the anchors that are candidates because of a box, and those without a penalty for that box."""
    near_GA = _near_center(boxes.xyxy, anchors, config.center_radius) & boxes.mask[:, None]
    if not config.in_box_candidates:
        return near_GA, near_GA
    inside_GA = _inside(boxes.xyxy, anchors) & boxes.mask[:, None]
    return near_GA | inside_GA, near_GA & inside_GA


def _iou_and_cost(
    boxes: _Boxes, predicted: _Predicted, candidate_A: jax.Array, config: SimOtaConfig
) -> tuple[jax.Array, jax.Array]:
    """IoU and cost [G, A] of every real box with every candidate, including those of other boxes; 0 and ∞ elsewhere."""
    real_GA = candidate_A[None, :] & boxes.mask[:, None]
    _, free_GA = _candidates(boxes, predicted.anchors, config)
    iou_GA = jnp.where(real_GA, pairwise_iou(boxes.xyxy, predicted.xyxy), 0.0)
    cost_GA = (
        _class_cost(predicted.cls_logit, predicted.obj_logit, boxes.label)
        + config.iou_weight * -jnp.log(iou_GA + 1e-8)
        + config.outside_penalty * ~free_GA
    )
    return iou_GA, jnp.where(real_GA, cost_GA, jnp.inf)


def _take_cheapest(iou_GA: jax.Array, cost_GA: jax.Array, num_candidates: int) -> tuple[jax.Array, jax.Array]:
    """Dynamic k: each box takes its k cheapest candidates, k = Σ of its `num_candidates` best IoUs, and at least 1.

    Returns:
      For the K cheapest anchors of each box: whether the box takes them, and their indices, [G, K] each.
    """
    # k ≤ K since an IoU is at most 1, so one top-k of width K serves every box.
    width = min(num_candidates, iou_GA.shape[1])
    k_G = jnp.maximum(top_k(iou_GA, width)[0].sum(axis=1).astype(jnp.int32), 1)
    negative_cost_GK, anchor_GK = top_k(-cost_GA, width)
    taken_GK = (jnp.arange(width)[None, :] < k_G[:, None]) & jnp.isfinite(negative_cost_GK)
    return taken_GK, anchor_GK


def _resolve_conflicts(taken_GK: jax.Array, anchor_GK: jax.Array, iou_GA: jax.Array, cost_GA: jax.Array) -> Assignment:
    """Gives an anchor that several boxes take to the real box of lowest cost, even if that box did not take it.

    This is the reference's rule. All results are zero for an anchor that no box takes.
    """
    num_boxes, num_anchors = iou_GA.shape
    gt_GK = jnp.broadcast_to(jnp.arange(num_boxes, dtype=jnp.int32)[:, None], anchor_GK.shape)
    zero_A = jnp.zeros(num_anchors, jnp.int32)
    num_takers_A = zero_A.at[anchor_GK].add(taken_GK.astype(jnp.int32))
    last_taker_A = zero_A.at[anchor_GK].max(jnp.where(taken_GK, gt_GK, 0))  # the only one, unless several take it
    gt_index_A = jnp.where(num_takers_A > 1, argmin_rows(cost_GA), last_taker_A)

    positive_A = num_takers_A > 0
    iou_A = jnp.take_along_axis(iou_GA, gt_index_A[None, :], axis=0)[0]
    return Assignment(positive=positive_A, gt_index=gt_index_A, iou=jnp.where(positive_A, iou_A, 0.0))


def _near_center(gt_xyxy_G4: jax.Array, anchors: Anchors, radius: float) -> jax.Array:
    """True [G, A] if the anchor lies strictly within `radius` strides of the box's center, in x and in y."""
    center_G2 = (gt_xyxy_G4[:, :2] + gt_xyxy_G4[:, 2:]) / 2
    reach_1A = (anchors.strides * radius)[None, :]
    near_GA = jnp.ones((len(gt_xyxy_G4), len(anchors.strides)), bool)
    for axis in range(2):
        center_G1, point_1A = center_G2[:, axis, None], anchors.centers[None, :, axis]
        # Subtracted in the reference's order: for a point on the edge, the last bit decides.
        near_GA &= (point_1A - (center_G1 - reach_1A) > 0) & ((center_G1 + reach_1A) - point_1A > 0)
    return near_GA


def _inside(gt_xyxy_G4: jax.Array, anchors: Anchors) -> jax.Array:
    """True [G, A] if the anchor lies strictly inside the box."""
    point_1A2 = anchors.centers[None]
    low_G12, high_G12 = gt_xyxy_G4[:, None, :2], gt_xyxy_G4[:, None, 2:]
    return ((point_1A2 > low_G12) & (point_1A2 < high_G12)).all(axis=2)


def _class_cost(cls_logit_AC: jax.Array, obj_logit_A: jax.Array, gt_label_G: jax.Array) -> jax.Array:
    """Σ_c BCE(√(p_cls·p_obj), onehot(label)) as [G, A], without an array [G, A, C].

    The sum for "no class present" is one number per anchor; the box's own class then corrects it.
    """
    _, log_absent_AC = _log_probs(cls_logit_AC, obj_logit_A[:, None])
    log_present_GA, log_absent_GA = _log_probs(cls_logit_AC.T[gt_label_G], obj_logit_A[None, :])
    return -log_absent_AC.sum(axis=1)[None, :] + (log_absent_GA - log_present_GA)


def _log_probs(cls_logit: jax.Array, obj_logit: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log p and log(1 − p) of p = √(p_cls·p_obj)."""
    prob = jnp.sqrt(jax.nn.sigmoid(cls_logit) * jax.nn.sigmoid(obj_logit))
    return jnp.maximum(jnp.log(prob), _LOG_FLOOR), jnp.maximum(jnp.log1p(-prob), _LOG_FLOOR)
