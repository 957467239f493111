"""Raw predictions to detections: decode, score, cut, NMS, all of fixed shape."""

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.detection import boxes, nms
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
) -> Detections:
    """The detections of a batch, best score first, in input pixels.

    A box's score is its objectness times the probability of its best class, as in the reference's postprocess.

    Args:
      predictions: raw outputs of B images.
      anchors: of their size.
      conf: the least score kept.
      iou: boxes of one class that overlap a better one by more than this fall.
      max_detections: D, the slots of the answer; static.
      num_candidates: how many of the best boxes enter NMS; static.
    """

    def detect_one(image: Predictions) -> Detections:
        return _detect_image(image, anchors, conf, iou, max_detections, num_candidates)

    return lax.map(detect_one, jax.tree.map(lambda x: x.astype(jnp.float32), predictions), batch_size=_AT_A_TIME)


def _detect_image(
    predictions: Predictions, anchors: Anchors, conf: float, iou: float, max_detections: int, num_candidates: int
) -> Detections:
    num_candidates = min(num_candidates, anchors.strides.shape[0])
    # The sigmoid rises, so the best class is that of the highest logit and only its probability is needed.
    cls_prob_A = jax.nn.sigmoid(predictions.cls_logits.max(axis=1))
    score_A = jax.nn.sigmoid(predictions.obj_logits) * cls_prob_A
    score_N, anchor_N = lax.top_k(jnp.where(score_A >= conf, score_A, -1.0), num_candidates)
    label_N = jnp.argmax(predictions.cls_logits[anchor_N], axis=1).astype(jnp.int32)
    pred_cxcywh_N4 = decode(predictions.box_deltas, anchors)[anchor_N]
    pred_xyxy_N4 = boxes.cxcywh_to_xyxy(pred_cxcywh_N4)

    keep_N = nms.keep_mask(pred_xyxy_N4, label_N, score_N >= 0, iou)
    score_D, kept_D = lax.top_k(jnp.where(keep_N, score_N, -1.0), min(max_detections, num_candidates))
    detections = Detections(
        boxes=pred_xyxy_N4[kept_D], scores=jnp.maximum(score_D, 0.0), labels=label_N[kept_D], mask=score_D >= 0
    )
    # A tiny input has fewer anchors than slots: the answer keeps its shape.
    spare = max_detections - kept_D.shape[0]
    return jax.tree.map(lambda x: jnp.pad(x, ((0, spare),) + ((0, 0),) * (x.ndim - 1)), detections)
