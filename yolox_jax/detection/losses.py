"""What the network is punished for.

Source: YOLOX (arXiv 2107.08430) section 2.1 and the reference's YOLOXHead.get_losses and IOUloss.
"""

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax import boxes
from yolox_jax.detection import simota
from yolox_jax.detection.anchors import decode, encode
from yolox_jax.types import Anchors, Assignment, Predictions

_IOU_WEIGHT = 5.0  # the reference's reg_weight

Metrics = dict[str, jax.Array]


def detection_loss(
    predictions: Predictions,
    anchors: Anchors,
    gt_boxes: jax.Array,
    gt_labels: jax.Array,
    gt_mask: jax.Array,
    l1_weight: jax.Array | float,
    *,
    assignment_config: simota.SimOtaConfig = simota.SimOtaConfig(),
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """The loss of a batch: (5·Σ(1−IoU²) + ΣBCE(obj) + ΣBCE(cls) + l1_weight·ΣL1) / number of positive anchors.

    Everything is float32, whatever the network computed in.

    Args:
      predictions: raw outputs of B images.
      anchors: of their size.
      gt_boxes: [B, G, 4] xyxy pixels.
      gt_labels: [B, G] int.
      gt_mask: [B, G] bool.
      l1_weight: 1 in the last epochs of the recipe, else 0; may be traced.
      assignment_config: the tunables of SimOTA.
      axis_name: where given, the number of positives is that of all devices of this mapped axis, while the sums stay
        this device's: the loss of the whole batch is the sum of what the devices return, and so is its gradient.
    Returns:
      The loss and its parts: loss, loss_iou (× 5), loss_obj, loss_cls, loss_l1, and of all devices num_fg, num_gt and
      num_fg_per_gt.
    """
    predictions = jax.tree.map(lambda x: x.astype(jnp.float32), predictions)
    image_sums = jax.vmap(_image_sums, in_axes=(0, None, 0, 0, 0, None))
    sums = image_sums(predictions, anchors, gt_boxes.astype(jnp.float32), gt_labels, gt_mask, assignment_config)
    sums = {name: per_image_B.sum() for name, per_image_B in sums.items()}

    num_fg, num_gt = sums["num_fg"], gt_mask.sum().astype(jnp.float32)
    if axis_name is not None:
        num_fg, num_gt = lax.psum((num_fg, num_gt), axis_name)
    scale = 1 / jnp.maximum(num_fg, 1)
    parts = {
        "loss_iou": _IOU_WEIGHT * sums["iou"] * scale,
        "loss_obj": sums["obj"] * scale,
        "loss_cls": sums["cls"] * scale,
        "loss_l1": l1_weight * sums["l1"] * scale,
    }
    loss = parts["loss_iou"] + parts["loss_obj"] + parts["loss_cls"] + parts["loss_l1"]
    counts = {"num_fg": num_fg, "num_gt": num_gt, "num_fg_per_gt": num_fg / jnp.maximum(num_gt, 1)}
    return loss, {"loss": loss, **parts, **counts}


def assign(
    predictions: Predictions,
    anchors: Anchors,
    gt_xyxy_G4: jax.Array,
    gt_label_G: jax.Array,
    gt_mask_G: jax.Array,
    config: simota.SimOtaConfig,
) -> Assignment:
    """SimOTA for one image from raw predictions (no B); no gradient flows through it."""
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
    config: simota.SimOtaConfig,
) -> dict[str, jax.Array]:
    """The sums over one image's anchors that the loss is made of."""
    assignment = assign(predictions, anchors, gt_xyxy_G4, gt_label_G, gt_mask_G, config)
    positive_A = assignment.positive
    target_cxcywh_A4 = boxes.xyxy_to_cxcywh(gt_xyxy_G4)[assignment.gt_index]
    # Only a positive anchor's box is ever decoded with a gradient: exp() of a stray delta would make 0·∞ = NaN.
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

    return {
        "iou": sum_positive(1 - iou_A**2),
        "obj": obj_A.sum(),
        "cls": sum_positive(cls_A),
        "l1": sum_positive(l1_A),
        "num_fg": positive_A.sum().astype(jnp.float32),
    }


def _bce(logit: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy of a logit with a probability, elementwise."""
    return jax.nn.softplus(logit) - logit * target


def _aligned_iou(pred_cxcywh_A4: jax.Array, target_cxcywh_A4: jax.Array) -> jax.Array:
    """IoU of each box with its own target, [A]; areas from the sizes themselves, as in the reference's IOUloss."""
    pred_xyxy_A4, target_xyxy_A4 = boxes.cxcywh_to_xyxy(pred_cxcywh_A4), boxes.cxcywh_to_xyxy(target_cxcywh_A4)
    low_A2 = jnp.maximum(pred_xyxy_A4[:, :2], target_xyxy_A4[:, :2])
    high_A2 = jnp.minimum(pred_xyxy_A4[:, 2:], target_xyxy_A4[:, 2:])
    overlap_A = (low_A2 < high_A2).all(axis=1)
    inter_A = jnp.where(overlap_A, jnp.prod(high_A2 - low_A2, axis=1), 0.0)
    union_A = jnp.prod(pred_cxcywh_A4[:, 2:], axis=1) + jnp.prod(target_cxcywh_A4[:, 2:], axis=1) - inter_A
    return inter_A / (union_A + 1e-16)
