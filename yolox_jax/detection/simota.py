"""Which anchor learns which box: SimOTA, with fixed shapes, for one image.

Source: YOLOX (arXiv 2107.08430) section 2.3; the reference's YOLOXHead.get_assignments and simota_matching.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.boxes import pairwise_iou
from yolox_jax.detection.anchors import STRIDES
from yolox_jax.types import Anchors, Assignment

_SHARES = tuple((STRIDES[-1] // stride) ** 2 for stride in STRIDES)  # anchors of each level in 32×32 pixels
_CHUNK = sum(_SHARES)  # any image has a multiple
_LOG_FLOOR = -100.0  # torch's binary_cross_entropy clamps log(p) here

_Boxes = tuple[jax.Array, jax.Array, jax.Array]  # xyxy, label and mask of every slot
_Predicted = tuple[jax.Array, jax.Array, jax.Array, Anchors]  # xyxy, class and objectness logits, of these anchors


@dataclasses.dataclass(frozen=True)
class SimOtaConfig:
    """The tunables of the assignment; the defaults are the reference's."""

    center_radius: float = 1.5  # strides: a box may claim anchors this near its centre, in x and in y
    num_candidates: int = 10  # IoUs summed for the dynamic k, and so the most anchors one box can take
    iou_weight: float = 3.0
    outside_penalty: float = 1e6  # cost of a candidate that is not near this box's own centre
    # Anchors anywhere inside a box are candidates as well, and those both inside and near go without the penalty: the
    # rule of the paper and of the published weights.
    in_box_candidates: bool = False


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
    """Gives every real box its k cheapest anchors, k being the sum of its best IoUs, and every anchor at most one box.

    Slots where `gt_mask_G` is False change nothing. A box none of whose neighbours exist (its centre far outside the
    image, alone) gets no anchor. Memory is O(G·A).
    """
    boxes, predicted = (gt_xyxy_G4, gt_label_G, gt_mask_G), (pred_xyxy_A4, cls_logit_AC, obj_logit_A, anchors)
    over_near = functools.partial(_assign_over_near, config=config)
    over_all = functools.partial(_assign_over_all, config=config)
    # A TPU scatters one number after the other: gathering the few anchors near some box would cost it more than it saves.
    return lax.platform_dependent(boxes, predicted, cpu=over_near, default=over_all)


def _assign_over_near(boxes: _Boxes, predicted: _Predicted, *, config: SimOtaConfig) -> Assignment:
    """The same from the N anchors alone that lie near some box, gathered into slots; there is a bound to their number.

    Processor time, 8 images at 640: 8 ms against 31 with 50 boxes, 29 against 58 with 120.
    """
    gt_xyxy_G4, gt_label_G, gt_mask_G = boxes
    anchors = predicted[-1]
    num_anchors = len(anchors.strides)
    size = _most_near(len(gt_label_G), num_anchors, config.center_radius)
    if config.in_box_candidates or size >= num_anchors:
        return _assign_over_all(boxes, predicted, config=config)
    near_GA = _near_center(gt_xyxy_G4, anchors, config.center_radius) & gt_mask_G[:, None]
    (anchor_N,) = jnp.nonzero(near_GA.any(axis=0), size=size, fill_value=num_anchors)  # in their order
    gathered = jax.tree.map(lambda x_A: jnp.take(x_A, anchor_N, axis=0, mode="clip"), predicted)
    assignment = _assign_over_all(boxes, gathered, anchor_N < num_anchors, config=config)
    return jax.tree.map(lambda x_N: jnp.zeros(num_anchors, x_N.dtype).at[anchor_N].set(x_N, mode="drop"), assignment)


def _assign_over_all(
    boxes: _Boxes, predicted: _Predicted, exists_A: jax.Array | None = None, *, config: SimOtaConfig
) -> Assignment:
    """`assign` over these anchors; where `exists_A` is given and False, there is none."""
    gt_xyxy_G4, gt_label_G, gt_mask_G = boxes
    pred_xyxy_A4, cls_logit_AC, obj_logit_A, anchors = predicted
    near_GA = _near_center(gt_xyxy_G4, anchors, config.center_radius) & gt_mask_G[:, None]
    candidate_GA = near_GA
    if config.in_box_candidates:
        inside_GA = _inside(gt_xyxy_G4, anchors) & gt_mask_G[:, None]
        candidate_GA, near_GA = near_GA | inside_GA, near_GA & inside_GA
    candidate_A = candidate_GA.any(axis=0)
    if exists_A is not None:
        candidate_A &= exists_A
    real_GA = candidate_A[None, :] & gt_mask_G[:, None]

    iou_GA = jnp.where(real_GA, pairwise_iou(gt_xyxy_G4, pred_xyxy_A4), 0.0)
    cost_GA = (
        _class_cost(cls_logit_AC, obj_logit_A, gt_label_G)
        + config.iou_weight * -jnp.log(iou_GA + 1e-8)
        + config.outside_penalty * ~near_GA
    )
    cost_GA = jnp.where(real_GA, cost_GA, jnp.inf)

    # Dynamic k. A sum of num_candidates IoUs is at most num_candidates, so one top-k of that width serves every box.
    width = min(config.num_candidates, len(anchors.strides))
    k_G = jnp.maximum(_top_k(iou_GA, width)[0].sum(axis=1).astype(jnp.int32), 1)
    negative_cost_GK, anchor_GK = _top_k(-cost_GA, width)
    taken_GK = (jnp.arange(width)[None, :] < k_G[:, None]) & jnp.isfinite(negative_cost_GK)

    # Each anchor counts its takers and remembers one: the only one, unless it is contested.
    gt_GK = jnp.broadcast_to(jnp.arange(len(gt_label_G), dtype=jnp.int32)[:, None], anchor_GK.shape)
    zero_A = jnp.zeros_like(anchors.strides, dtype=jnp.int32)
    num_takers_A = zero_A.at[anchor_GK].add(taken_GK.astype(jnp.int32))
    taker_A = zero_A.at[anchor_GK].max(jnp.where(taken_GK, gt_GK, 0))
    # A contested anchor goes to the box that finds it cheapest, whether that box took it or not, as in the reference.
    gt_index_A = jnp.where(num_takers_A > 1, _argmin_over_boxes(cost_GA), taker_A)

    positive_A = num_takers_A > 0
    iou_A = jnp.take_along_axis(iou_GA, gt_index_A[None, :], axis=0)[0]
    return Assignment(positive=positive_A, gt_index=gt_index_A, iou=jnp.where(positive_A, iou_A, 0.0))


def _most_near(num_boxes: int, num_anchors: int, radius: float) -> int:
    """How many anchors of all levels can be near some box's centre, rounded up to whole chunks."""
    of_each_box = math.ceil(2 * radius) ** 2
    of_levels = [-(-num_anchors * share // _CHUNK) for share in _SHARES]
    most = sum(min(of_each_box * num_boxes, of_level) for of_level in of_levels)
    return -(-most // _CHUNK) * _CHUNK


def _argmin_over_boxes(cost_GA: jax.Array) -> jax.Array:
    """The first box of the least cost, int32 [A], as two plain minima.

    XLA:CPU makes a slow loop of an argmin: 18 ms of processor time against 5 (8×120×3549).
    """
    num_boxes = cost_GA.shape[0]
    index_G1 = jnp.arange(num_boxes, dtype=jnp.int32)[:, None]
    return jnp.where(cost_GA == cost_GA.min(axis=0)[None, :], index_G1, num_boxes).min(axis=0)


def _top_k(x_GA: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k`, on a CPU in two stages."""
    of_chunks = functools.partial(_top_k_of_chunks, k=k)
    return lax.platform_dependent(x_GA, cpu=of_chunks, default=lambda x_GA: tuple(lax.top_k(x_GA, k)))


def _top_k_of_chunks(x_GA: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    """The same, equal ones in its order too: the k chunks of the highest maxima have them all.

    XLA:CPU takes maxima on all cores, but top_k on one: 4.5 ms for 8×50×8400 in one stage, 1.6 ms in two.
    """
    num_boxes, num_anchors = x_GA.shape
    if num_anchors % _CHUNK or num_anchors < k * _CHUNK:
        best_GK, anchor_GK = lax.top_k(x_GA, k)
        return best_GK, anchor_GK
    chunked_GNC = x_GA.reshape(num_boxes, -1, _CHUNK)
    _, chunk_GK = lax.top_k(chunked_GNC.max(axis=2), k)
    chunk_GK = jnp.sort(chunk_GK, axis=1)  # of equal ones the first anchor comes first
    candidates_GKC = jnp.take_along_axis(chunked_GNC, chunk_GK[:, :, None], axis=1)
    best_GK, place_GK = lax.top_k(candidates_GKC.reshape(num_boxes, -1), k)
    return best_GK, jnp.take_along_axis(chunk_GK, place_GK // _CHUNK, axis=1) * _CHUNK + place_GK % _CHUNK


def _near_center(gt_xyxy_G4: jax.Array, anchors: Anchors, radius: float) -> jax.Array:
    """True [G, A] where the anchor lies strictly within `radius` strides of the box's centre, in x and in y."""
    center_G2 = (gt_xyxy_G4[:, :2] + gt_xyxy_G4[:, 2:]) / 2
    reach_1A = (anchors.strides * radius)[None, :]
    near_GA = jnp.ones((len(gt_xyxy_G4), len(anchors.strides)), bool)
    for axis in range(2):
        center_G1, point_1A = center_G2[:, axis, None], anchors.centers[None, :, axis]
        # Subtracted in the reference's order: whether a point lies on the edge is decided by the last bit.
        near_GA &= (point_1A - (center_G1 - reach_1A) > 0) & ((center_G1 + reach_1A) - point_1A > 0)
    return near_GA


def _inside(gt_xyxy_G4: jax.Array, anchors: Anchors) -> jax.Array:
    """True [G, A] where the anchor lies strictly inside the box."""
    point_1A2 = anchors.centers[None]
    low_G12, high_G12 = gt_xyxy_G4[:, None, :2], gt_xyxy_G4[:, None, 2:]
    return ((point_1A2 > low_G12) & (point_1A2 < high_G12)).all(axis=2)


def _class_cost(cls_logit_AC: jax.Array, obj_logit_A: jax.Array, gt_label_G: jax.Array) -> jax.Array:
    """Σ_c BCE(√(p_cls·p_obj), onehot(label)) as [G, A].

    All classes but the box's own are taken as absent, so the sum is one number an anchor, corrected at the label:
    no [G, A, C] array.
    """
    _, log_absent_AC = _log_probs(cls_logit_AC, obj_logit_A[:, None])
    log_present_GA, log_absent_GA = _log_probs(cls_logit_AC.T[gt_label_G], obj_logit_A[None, :])
    return -log_absent_AC.sum(axis=1)[None, :] + (log_absent_GA - log_present_GA)


def _log_probs(cls_logit: jax.Array, obj_logit: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log p and log(1 − p) of p = √(p_cls·p_obj)."""
    prob = jnp.sqrt(jax.nn.sigmoid(cls_logit) * jax.nn.sigmoid(obj_logit))
    return jnp.maximum(jnp.log(prob), _LOG_FLOOR), jnp.maximum(jnp.log1p(-prob), _LOG_FLOOR)
