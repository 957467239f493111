"""The training loss: `loss_sums` adds up its terms over some images, and `divide` is the one place that divides.

Source: YOLOX (arXiv 2107.08430) section 2.1; the reference's YOLOXHead.get_losses and IOUloss.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax import boxes
from yolox_jax.detection import simota
from yolox_jax.detection.anchors import decode, encode
from yolox_jax.types import Anchors, Assignment, Predictions

_IOU_WEIGHT = 5.0  # the reference's reg_weight

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class LossSums:
    """Sums over some images. Add the sums of all parts of a batch and of all devices, then `divide` the total.

    A new loss term, mean or count is one more entry in what `_image_sums` returns; it is then logged under that name.
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
) -> LossSums:
    """Sums of the loss terms and counts over these images, in float32 for any compute dtype.

    Args:
      predictions: raw outputs of B images.
      anchors: of their size.
      gt_boxes: [B, G, 4] xyxy pixels.
      gt_labels: [B, G] int.
      gt_mask: [B, G] bool.
      l1_weight: 1 in the no-aug epochs, else 0; may be traced.
      assignment_config: the tunables of SimOTA.
    """
    predictions = jax.tree.map(lambda x: x.astype(jnp.float32), predictions)
    gt_boxes = gt_boxes.astype(jnp.float32)

    def image_sums(image: Predictions, gt_xyxy_G4: jax.Array, gt_label_G: jax.Array, gt_mask_G: jax.Array) -> LossSums:
        assignment = assign(image, anchors, gt_xyxy_G4, gt_label_G, gt_mask_G, assignment_config)
        return _image_sums(image, anchors, gt_xyxy_G4, gt_label_G, gt_mask_G, assignment, l1_weight)

    sums_B = jax.vmap(image_sums)(predictions, gt_boxes, gt_labels, gt_mask)
    return jax.tree.map(lambda x_B: x_B.sum(), sums_B)


def divide(sums: LossSums, gradients: Any = None) -> tuple[Metrics, Any]:
    """Turns the sums of a whole batch, and the gradients of their weighted sum, into metrics and gradients.

    Returns:
      loss, the terms, means and counts of the sums, num_fg_per_gt; and the gradients of the loss.
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
) -> tuple[jax.Array, Metrics]:
    """The loss of a batch: (5·Σ(1−IoU²) + ΣBCE(obj) + ΣBCE(cls) + l1_weight·ΣL1) / number of positive anchors.

    Takes the arguments of `loss_sums`.

    Returns:
      The loss, and the metrics loss, loss_iou (× 5), loss_obj, loss_cls, loss_l1, num_fg, num_gt and num_fg_per_gt.
    """
    sums = loss_sums(predictions, anchors, gt_boxes, gt_labels, gt_mask, l1_weight, assignment_config=assignment_config)
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
) -> LossSums:
    """The sums of one image."""
    positive_A = assignment.positive
    target_cxcywh_A4 = boxes.xyxy_to_cxcywh(gt_xyxy_G4)[assignment.gt_index]
    # Deltas of other anchors are never decoded: exp() of a large one would give 0·∞ = NaN in the gradient.
    delta_A4 = jnp.where(positive_A[:, None], predictions.box_deltas, 0.0)
    target_cxcywh_A4 = jnp.where(positive_A[:, None], target_cxcywh_A4, 1.0)

    iou_A = _aligned_iou(decode(delta_A4, anchors), target_cxcywh_A4)
    obj_A = _bce(predictions.obj_logits, positive_A.astype(jnp.float32))
    # Σ_c BCE(logit_c, onehot(label)·IoU) = Σ_c softplus(logit_c) − logit_label·IoU.
    label_A = gt_label_G[assignment.gt_index]
    label_logit_A = jnp.take_along_axis(predictions.cls_logits, label_A[:, None], axis=1)[:, 0]
    cls_A = jax.nn.softplus(predictions.cls_logits).sum(axis=1) - label_logit_A * assignment.iou
    l1_A = jnp.abs(delta_A4 - encode(target_cxcywh_A4, anchors)).sum(axis=1)

    def sum_positive(value_A: jax.Array) -> jax.Array:
        return jnp.where(positive_A, value_A, 0.0).sum()

    return LossSums(
        terms={
            "loss_iou": _IOU_WEIGHT * sum_positive(1 - iou_A**2),
            "loss_obj": obj_A.sum(),
            "loss_cls": sum_positive(cls_A),
            "loss_l1": l1_weight * sum_positive(l1_A),
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


def _aligned_iou(pred_cxcywh_A4: jax.Array, target_cxcywh_A4: jax.Array) -> jax.Array:
    """IoU of each box with its own target, [A]; areas come from the sizes themselves, as in the reference's IOUloss."""
    pred_xyxy_A4, target_xyxy_A4 = boxes.cxcywh_to_xyxy(pred_cxcywh_A4), boxes.cxcywh_to_xyxy(target_cxcywh_A4)
    low_A2 = jnp.maximum(pred_xyxy_A4[:, :2], target_xyxy_A4[:, :2])
    high_A2 = jnp.minimum(pred_xyxy_A4[:, 2:], target_xyxy_A4[:, 2:])
    overlap_A = (low_A2 < high_A2).all(axis=1)
    inter_A = jnp.where(overlap_A, jnp.prod(high_A2 - low_A2, axis=1), 0.0)
    union_A = jnp.prod(pred_cxcywh_A4[:, 2:], axis=1) + jnp.prod(target_cxcywh_A4[:, 2:], axis=1) - inter_A
    return inter_A / (union_A + 1e-16)
