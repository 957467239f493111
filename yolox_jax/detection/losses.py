"""The training loss: `loss_sums` adds up its terms over some images, and `divide` is the one place that divides.

Source: YOLOX (arXiv 2107.08430) section 2.1; the reference's YOLOXHead.get_losses and IOUloss.
"""

import dataclasses
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax import boxes
from yolox_jax.detection import simota
from yolox_jax.detection.anchors import decode, encode
from yolox_jax.errors import UserError
from yolox_jax.types import Anchors, Assignment, Predictions

Metrics = dict[str, jax.Array]

_IOU_TYPES = ("iou", "giou")
_EPSILON = 1e-16  # the reference's IOUloss


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights and kinds of the loss terms; the defaults are the reference's."""

    iou_weight: float = 5.0
    obj_weight: float = 1.0
    cls_weight: float = 1.0
    l1_weight: float = 1.0  # in the no-aug epochs; L1 is off before them
    iou_type: str = "iou"  # 1 − IoU², or "giou": 1 − GIoU (arXiv 1902.09630)

    def __post_init__(self) -> None:
        for name in ("iou_weight", "obj_weight", "cls_weight", "l1_weight"):
            weight = getattr(self, name)
            if not 0 <= weight < math.inf:
                raise UserError(f"config.loss.{name} is {weight}", "give a finite number of 0 or more")
        if self.iou_type not in _IOU_TYPES:
            raise UserError(f"config.loss.iou_type is {self.iou_type!r}", f"choose one of {', '.join(_IOU_TYPES)}")


@flax.struct.dataclass
class LossSums:
    """Sums over some images. Add the sums of all parts of a batch and of all devices, then `divide` the total.

    To add a loss term, mean or count, add an entry in `_image_sums`; it is then logged under that name.
    """

    terms: Metrics  # weighted loss terms: the loss is their sum divided by num_fg
    means: Metrics  # sums over the positive anchors, logged as means over these; not part of the loss
    counts: Metrics  # logged as they are; num_fg and num_gt are always among them

    def weighted_sum(self) -> jax.Array:
        """The undivided loss, which is what the step differentiates."""
        return sum(self.terms.values(), start=jnp.zeros(()))


def loss_sums(
    predictions: Predictions,
    anchors: Anchors,
    gt_boxes: jax.Array,
    gt_labels: jax.Array,
    gt_mask: jax.Array,
    l1_weight: jax.Array | float,
    *,
    assignment_config: simota.SimOtaConfig = simota.SimOtaConfig(),
    loss_config: LossConfig = LossConfig(),
) -> LossSums:
    """Sums of the loss terms and counts over these images, in float32 for any compute dtype.

    Args:
      predictions: raw outputs of B images.
      anchors: the anchor points of their image size.
      gt_boxes: [B, G, 4] xyxy pixels.
      gt_labels: [B, G] int.
      gt_mask: [B, G] bool.
      l1_weight: 1 in the no-aug epochs, else 0; may be traced. Multiplies `loss_config.l1_weight`.
      assignment_config: the parameters of SimOTA.
      loss_config: weights and kinds of the terms.
    """
    predictions = jax.tree.map(lambda x: x.astype(jnp.float32), predictions)
    gt_boxes = gt_boxes.astype(jnp.float32)

    def image_sums(image: Predictions, gt_xyxy_G4: jax.Array, gt_label_G: jax.Array, gt_mask_G: jax.Array) -> LossSums:
        assignment = assign(image, anchors, gt_xyxy_G4, gt_label_G, gt_mask_G, assignment_config)
        return _image_sums(image, anchors, gt_xyxy_G4, gt_label_G, gt_mask_G, assignment, l1_weight, loss_config)

    sums_B = jax.vmap(image_sums)(predictions, gt_boxes, gt_labels, gt_mask)
    return jax.tree.map(lambda x_B: x_B.sum(), sums_B)


def divide(sums: LossSums, gradients: Any = None) -> tuple[Metrics, Any]:
    """Turns the sums of a whole batch, and the gradients of their weighted sum, into metrics and gradients.

    Args:
      sums: added over all parts and devices.
      gradients: any tree that scales with the weighted sum, such as its gradients and their norm.
    Returns:
      The metrics (loss; the terms, means and counts of the sums; num_fg_per_gt), and the tree, scaled to the loss.
    """
    num_fg, num_gt = sums.counts["num_fg"], sums.counts["num_gt"]
    scale = 1 / jnp.maximum(num_fg, 1)
    terms, means, gradients = jax.tree.map(lambda x: x * scale, (sums.terms, sums.means, gradients))
    loss = sum(terms.values(), start=jnp.zeros(()))
    ratios = {"num_fg_per_gt": num_fg / jnp.maximum(num_gt, 1)}
    return {"loss": loss, **terms, **means, **sums.counts, **ratios}, gradients


def detection_loss(
    predictions: Predictions,
    anchors: Anchors,
    gt_boxes: jax.Array,
    gt_labels: jax.Array,
    gt_mask: jax.Array,
    l1_weight: jax.Array | float,
    *,
    assignment_config: simota.SimOtaConfig = simota.SimOtaConfig(),
    loss_config: LossConfig = LossConfig(),
) -> tuple[jax.Array, Metrics]:
    """The loss of a batch: (5·Σ(1−IoU²) + ΣBCE(obj) + ΣBCE(cls) + l1_weight·ΣL1) / number of positive anchors.

    The arguments are those of `loss_sums`; the formula shows the default weights.

    Returns:
      The loss, and the metrics loss, loss_iou, loss_obj, loss_cls, loss_l1 (with their weights), num_fg, num_gt and
      num_fg_per_gt.
    """
    sums = loss_sums(
        predictions,
        anchors,
        gt_boxes,
        gt_labels,
        gt_mask,
        l1_weight,
        assignment_config=assignment_config,
        loss_config=loss_config,
    )
    metrics, _ = divide(sums)
    return metrics["loss"], metrics


def assign(
    predictions: Predictions,
    anchors: Anchors,
    gt_xyxy_G4: jax.Array,
    gt_label_G: jax.Array,
    gt_mask_G: jax.Array,
    config: simota.SimOtaConfig,
) -> Assignment:
    """Runs SimOTA on the raw predictions of one image (no B); no gradient flows through it."""
    predictions = lax.stop_gradient(predictions)
    pred_xyxy_A4 = boxes.cxcywh_to_xyxy(decode(predictions.box_deltas, anchors))
    return simota.assign(
        gt_xyxy_G4, gt_label_G, gt_mask_G, pred_xyxy_A4, predictions.cls_logits, predictions.obj_logits, anchors, config
    )


def _image_sums(
    predictions: Predictions,
    anchors: Anchors,
    gt_xyxy_G4: jax.Array,
    gt_label_G: jax.Array,
    gt_mask_G: jax.Array,
    assignment: Assignment,
    l1_weight: jax.Array | float,
    config: LossConfig,
) -> LossSums:
    """The sums of one image."""
    positive_A = assignment.positive
    target_cxcywh_A4 = boxes.xyxy_to_cxcywh(gt_xyxy_G4)[assignment.gt_index]
    # Deltas of other anchors are never decoded: exp() of a large one would give 0·∞ = NaN in the gradient.
    delta_A4 = jnp.where(positive_A[:, None], predictions.box_deltas, 0.0)
    target_cxcywh_A4 = jnp.where(positive_A[:, None], target_cxcywh_A4, 1.0)

    box_A = _box_loss(decode(delta_A4, anchors), target_cxcywh_A4, config.iou_type)
    obj_A = _bce(predictions.obj_logits, positive_A.astype(jnp.float32))
    label_AC = jax.nn.one_hot(gt_label_G[assignment.gt_index], predictions.cls_logits.shape[1])
    target_AC = label_AC * assignment.iou[:, None]
    cls_A = _bce(predictions.cls_logits, target_AC).sum(axis=1)
    l1_A = jnp.abs(delta_A4 - encode(target_cxcywh_A4, anchors)).sum(axis=1)

    def sum_positive(value_A: jax.Array) -> jax.Array:
        return jnp.where(positive_A, value_A, 0.0).sum()

    return LossSums(
        terms={
            "loss_iou": config.iou_weight * sum_positive(box_A),
            "loss_obj": config.obj_weight * obj_A.sum(),
            "loss_cls": config.cls_weight * sum_positive(cls_A),
            "loss_l1": config.l1_weight * l1_weight * sum_positive(l1_A),
        },
        means={},
        counts={
            "num_fg": positive_A.sum().astype(jnp.float32),
            "num_gt": gt_mask_G.sum().astype(jnp.float32),
        },
    )


def _bce(logit: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy of a logit with a probability, elementwise."""
    return jax.nn.softplus(logit) - logit * target


def _box_loss(pred_cxcywh_A4: jax.Array, target_cxcywh_A4: jax.Array, iou_type: str) -> jax.Array:
    """1 − IoU² or 1 − GIoU of each box and its own target, [A].

    Columns are split off, not sliced or reduced, whose gradients are several kernels more to compile.
    """
    low_A2, high_A2 = jnp.split(boxes.cxcywh_to_xyxy(pred_cxcywh_A4), 2, axis=1)
    target_low_A2, target_high_A2 = jnp.split(boxes.cxcywh_to_xyxy(target_cxcywh_A4), 2, axis=1)
    shared_A2 = jnp.minimum(high_A2, target_high_A2) - jnp.maximum(low_A2, target_low_A2)
    width_A1, height_A1 = jnp.split(shared_A2, 2, axis=1)
    inter_A1 = jnp.where((width_A1 > 0) & (height_A1 > 0), width_A1 * height_A1, 0.0)
    # Areas come from the sizes themselves, not from the corners, as in the reference.
    _, size_A2 = jnp.split(pred_cxcywh_A4, 2, axis=1)
    _, target_size_A2 = jnp.split(target_cxcywh_A4, 2, axis=1)
    union_A1 = _area(size_A2) + _area(target_size_A2) - inter_A1
    iou_A1 = inter_A1 / (union_A1 + _EPSILON)
    if iou_type == "iou":
        return (1 - iou_A1**2)[:, 0]

    hull_A1 = _area(jnp.maximum(high_A2, target_high_A2) - jnp.minimum(low_A2, target_low_A2))
    giou_A1 = iou_A1 - (hull_A1 - union_A1) / jnp.maximum(hull_A1, _EPSILON)
    return (1 - jnp.clip(giou_A1, -1.0, 1.0))[:, 0]


def _area(size_A2: jax.Array) -> jax.Array:
    """Width times height, [A, 1]."""
    width_A1, height_A1 = jnp.split(size_A2, 2, axis=1)
    return width_A1 * height_A1
