"""Turns raw predictions into detections: decoding, scores, threshold and NMS, all with fixed shapes."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax import boxes
from yolox_jax.detection import nms, tiles
from yolox_jax.detection.anchors import decode
from yolox_jax.detection.kernels.map_images import map_images
from yolox_jax.types import Anchors, Detections, Predictions, Tiles

# Boxes per image that enter NMS. On 100 COCO images at a score threshold of 0.001, more do not change AP.
DEFAULT_NUM_CANDIDATES = 2000
_AT_A_TIME = 8  # images; NMS needs a few arrays [N, N] for each, of 16 MB at N = 2000


def detect(
    predictions: Predictions,
    anchors: Anchors,
    conf: float,
    iou: float,
    max_detections: int,
    num_candidates: int = DEFAULT_NUM_CANDIDATES,
    multi_label: bool = False,
) -> Detections:
    """The detections of a batch, best score first, in input pixels.

    The score of a box is its objectness times the probability of its best class, as in the reference's postprocess.
    With `multi_label`, a box has one score for each class.

    Args:
      predictions: raw outputs of B images.
      anchors: the anchor points of their image size.
      conf: the score threshold; a score equal to it passes.
      iou: a box is suppressed if a better box of its class overlaps it by more than this.
      max_detections: D, the number of detection slots; static.
      num_candidates: how many of the best boxes enter NMS; static.
      multi_label: a box is a candidate for every class that passes the threshold, not only for its best one; static.
    """

    def detect_one(image: Predictions) -> Detections:
        return _detect_image(image, anchors, conf, iou, max_detections, num_candidates, multi_label)

    predictions = jax.tree.map(lambda x: x.astype(jnp.float32), predictions)
    return map_images(detect_one, predictions, _AT_A_TIME)


def detect_in_tiles(
    predictions: Predictions,
    anchors: Anchors,
    seen: Tiles,
    conf: float,
    iou: float,
    max_detections: int,
    num_candidates: int = DEFAULT_NUM_CANDIDATES,
    multi_label: bool = False,
) -> Detections:
    """As `detect`, of images that are cut into tiles: one NMS over all tiles of an image, boxes in its pixels.

    Args:
      predictions: of B images of T tiles each, [B, T, A, ...].
      anchors: of one tile.
      seen: the tiles.
      conf, iou, max_detections, num_candidates, multi_label: as of `detect`; candidates are those of all tiles.
    """

    def detect_one(image: tuple[Predictions, Tiles]) -> Detections:
        joined, placed, limits_A4 = tiles.join(*image, anchors, min_anchors=num_candidates)
        return _detect_image(joined, placed, conf, iou, max_detections, num_candidates, multi_label, limits_A4)

    predictions = jax.tree.map(lambda x: x.astype(jnp.float32), predictions)
    places = dataclasses.replace(seen, images=None)
    return map_images(detect_one, (predictions, places), _AT_A_TIME)


def _detect_image(
    predictions: Predictions,
    anchors: Anchors,
    conf: float,
    iou: float,
    max_detections: int,
    num_candidates: int,
    multi_label: bool,
    limits_A4: jax.Array | None = None,
) -> Detections:
    choose = _every_class if multi_label else _best_class
    score_N, anchor_N, label_N = choose(predictions, conf, num_candidates)
    pred_cxcywh_N4 = decode(predictions.box_deltas, anchors)[anchor_N]
    pred_xyxy_N4 = boxes.cxcywh_to_xyxy(pred_cxcywh_N4)
    cut_N = None
    if limits_A4 is not None:
        cut_N = tiles.cut_mask(pred_xyxy_N4, limits_A4[anchor_N])
        score_N, order_N = tiles.order(score_N, cut_N, conf)
        score_N, label_N, pred_xyxy_N4, cut_N = (x[order_N] for x in (score_N, label_N, pred_xyxy_N4, cut_N))

    keep_N = nms.keep_mask(pred_xyxy_N4, label_N, score_N >= 0, iou, cut_N)
    score_D, kept_D = lax.top_k(jnp.where(keep_N, score_N, -1.0), min(max_detections, len(score_N)))
    detections = Detections(
        boxes=pred_xyxy_N4[kept_D], scores=jnp.maximum(score_D, 0.0), labels=label_N[kept_D], mask=score_D >= 0
    )
    # A small input has fewer anchors than there are slots.
    num_empty = max_detections - kept_D.shape[0]
    return jax.tree.map(lambda x: jnp.pad(x, ((0, num_empty),) + ((0, 0),) * (x.ndim - 1)), detections)


def _best_class(predictions: Predictions, conf: float, num_candidates: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Score (-1 below the threshold `conf`), anchor and label of the best boxes, [N] each."""
    # The sigmoid is monotonic, so the best class has the highest logit, and only its probability is needed.
    cls_prob_A = jax.nn.sigmoid(predictions.cls_logits.max(axis=1))
    score_A = jax.nn.sigmoid(predictions.obj_logits) * cls_prob_A
    score_N, anchor_N = lax.top_k(jnp.where(score_A >= conf, score_A, -1.0), min(num_candidates, score_A.shape[0]))
    return score_N, anchor_N, jnp.argmax(predictions.cls_logits[anchor_N], axis=1).astype(jnp.int32)


def _every_class(predictions: Predictions, conf: float, num_candidates: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns what `_best_class` does, but for the best pairs of a box and a class."""
    num_classes = predictions.cls_logits.shape[1]
    score_AC = jax.nn.sigmoid(predictions.obj_logits)[:, None] * jax.nn.sigmoid(predictions.cls_logits)
    score_P = jnp.where(score_AC >= conf, score_AC, -1.0).reshape(-1)  # P pairs of a box and a class
    score_N, pair_N = lax.top_k(score_P, min(num_candidates, score_P.shape[0]))
    return score_N, pair_N // num_classes, (pair_N % num_classes).astype(jnp.int32)
