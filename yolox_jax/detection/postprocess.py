"""Raw predictions to detections: decode, score, cut, NMS, all of fixed shape."""

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax import boxes
from yolox_jax.detection import nms
from yolox_jax.detection.anchors import decode
from yolox_jax.types import Anchors, Detections, Predictions

# The boxes of one image that may enter NMS. On 100 COCO images at conf 0.001 a larger number leaves AP as it is.
DEFAULT_NUM_CANDIDATES = 2000
_AT_A_TIME = 8  # images: NMS holds a few [N, N] arrays for each, 16 MB apiece at N = 2000


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

    A box's score is its objectness times the probability of its best class, as in the reference's postprocess, or of
    each of its classes with `multi_label`.

    Args:
      predictions: raw outputs of B images.
      anchors: of their size.
      conf: the least score kept.
      iou: boxes of one class that overlap a better one by more than this fall.
      max_detections: D, the slots of the answer; static.
      num_candidates: how many of the best boxes enter NMS; static.
      multi_label: a box enters once for each class that scores `conf` or more, not for its best class only; static.
    """

    def detect_one(image: Predictions) -> Detections:
        return _detect_image(image, anchors, conf, iou, max_detections, num_candidates, multi_label)

    def one_by_one(images: Predictions) -> Detections:
        return lax.map(detect_one, images)

    def some_at_a_time(images: Predictions) -> Detections:
        return lax.map(detect_one, images, batch_size=_AT_A_TIME)

    predictions = jax.tree.map(lambda x: x.astype(jnp.float32), predictions)
    # A batch whose size is not known yet (jax.export) cannot be cut evenly.
    if not isinstance(predictions.obj_logits.shape[0], int):
        return one_by_one(predictions)
    # A CPU does eight images in 15 ms one by one, since the arrays of one fit its cache, and in 51 ms at a time.
    return lax.platform_dependent(predictions, cpu=one_by_one, default=some_at_a_time)


def _detect_image(
    predictions: Predictions,
    anchors: Anchors,
    conf: float,
    iou: float,
    max_detections: int,
    num_candidates: int,
    multi_label: bool,
) -> Detections:
    choose = _every_class if multi_label else _best_class
    score_N, anchor_N, label_N = choose(predictions, conf, num_candidates)
    pred_cxcywh_N4 = decode(predictions.box_deltas, anchors)[anchor_N]
    pred_xyxy_N4 = boxes.cxcywh_to_xyxy(pred_cxcywh_N4)

    keep_N = nms.keep_mask(pred_xyxy_N4, label_N, score_N >= 0, iou)
    score_D, kept_D = lax.top_k(jnp.where(keep_N, score_N, -1.0), min(max_detections, len(score_N)))
    detections = Detections(
        boxes=pred_xyxy_N4[kept_D], scores=jnp.maximum(score_D, 0.0), labels=label_N[kept_D], mask=score_D >= 0
    )
    # A tiny input has fewer anchors than slots: the answer keeps its shape.
    spare = max_detections - kept_D.shape[0]
    return jax.tree.map(lambda x: jnp.pad(x, ((0, spare),) + ((0, 0),) * (x.ndim - 1)), detections)


def _best_class(predictions: Predictions, conf: float, num_candidates: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Score (-1 below `conf`), anchor and label of the best boxes, [N] each."""
    # The sigmoid rises, so the best class is that of the highest logit and only its probability is needed.
    cls_prob_A = jax.nn.sigmoid(predictions.cls_logits.max(axis=1))
    score_A = jax.nn.sigmoid(predictions.obj_logits) * cls_prob_A
    score_N, anchor_N = lax.top_k(jnp.where(score_A >= conf, score_A, -1.0), min(num_candidates, len(score_A)))
    return score_N, anchor_N, jnp.argmax(predictions.cls_logits[anchor_N], axis=1).astype(jnp.int32)


def _every_class(predictions: Predictions, conf: float, num_candidates: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same of the best pairs of a box and a class."""
    num_classes = predictions.cls_logits.shape[1]
    score_AC = jax.nn.sigmoid(predictions.obj_logits)[:, None] * jax.nn.sigmoid(predictions.cls_logits)
    score_P = jnp.where(score_AC >= conf, score_AC, -1.0).reshape(-1)  # of all pairs
    score_N, pair_N = lax.top_k(score_P, min(num_candidates, len(score_P)))
    return score_N, pair_N // num_classes, (pair_N % num_classes).astype(jnp.int32)
