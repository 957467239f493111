"""Detections to Pascal VOC's average precision, as the reference's voc_eval.py defines it.

That code counts pixels from 1 with both ends inside a box; here boxes are from edge to edge, so that its width of
x2 − x1 + 1 is x2 − x1 and its IoU the plain one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_jax.evaluation.ap_result import UNDEFINED, ApResult, ClassAp
from yolox_jax.evaluation.image_boxes import ImageBoxes, by_image

_IOUS = np.linspace(0.5, 0.95, 10)
_RECALLS_07 = np.arange(0.0, 1.1, 0.1)  # not tenths exactly: a recall of 0.3 counts as one below the fourth


def evaluate(ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> ApResult:
    """mAP07 (eleven points of recall) and mAP12 (the area under the curve), both at IoU 0.5.

    AP is mAP12 averaged over IoU 0.5 to 0.95, the reference's map_5095; AP50 is mAP12. A box marked as a crowd is a
    difficult one: neither missed nor what finds it wrong. A class without other boxes is left out of the means.
    """
    images = by_image(ground_truth, detections)
    names = [str(category["name"]) for category in ground_truth["categories"]]
    per_class, aps_07 = [], []
    for label, name in enumerate(names):
        num_boxes = sum(int(((image.gt_label_G == label) & ~image.crowd_G).sum()) for image in images)
        if not num_boxes:
            per_class.append(ClassAp(name, UNDEFINED, UNDEFINED, 0))
            continue
        curves = [_curve(images, label, num_boxes, min_iou) for min_iou in _IOUS]
        areas = [area(*each) for each in curves]
        per_class.append(ClassAp(name, float(np.mean(areas)), areas[0], num_boxes))
        aps_07.append(eleven_points(*curves[0]))
    defined = [of_class for of_class in per_class if of_class.num_boxes]
    ap50 = _mean([of_class.AP50 for of_class in defined])
    stats = {"AP": _mean([of_class.AP for of_class in defined]), "AP50": ap50, "mAP07": _mean(aps_07), "mAP12": ap50}
    return ApResult(stats, tuple(per_class))


def eleven_points(recall_N: np.ndarray, precision_N: np.ndarray) -> float:
    """The mean over eleven recalls of the best precision at that recall or more."""
    return float(np.mean([precision_N[recall_N >= each].max(initial=0.0) for each in _RECALLS_07]))


def area(recall_N: np.ndarray, precision_N: np.ndarray) -> float:
    """The area under the precision, which is first made not to rise with the recall."""
    envelope_N = np.maximum.accumulate(precision_N[::-1])[::-1]
    return float(np.sum(np.diff(recall_N, prepend=0.0) * envelope_N))


def _curve(images: Sequence[ImageBoxes], label: int, num_boxes: int, min_iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each detection of a class, best score first."""
    scores, right, wrong = [np.zeros(0)], [np.zeros(0, np.bool_)], [np.zeros(0, np.bool_)]
    for image in images:
        of_class_D = image.found_label_D == label
        right_D, wrong_D = _judge(image, of_class_D, image.gt_label_G == label, min_iou)
        scores.append(image.score_D[of_class_D])
        right.append(right_D)
        wrong.append(wrong_D)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    num_right_N = np.cumsum(np.concatenate(right)[order])
    num_wrong_N = np.cumsum(np.concatenate(wrong)[order])
    return num_right_N / num_boxes, num_right_N / np.maximum(num_right_N + num_wrong_N, 1)


def _judge(
    image: ImageBoxes, of_class_D: np.ndarray, of_class_G: np.ndarray, min_iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each detection of a class is right, and whether it is wrong; on a difficult box it is neither.

    Unlike in COCO, a detection looks at the box of the largest IoU only: where that is found already, it is wrong.
    """
    num_found = int(of_class_D.sum())
    if not of_class_G.any():
        return np.zeros(num_found, np.bool_), np.ones(num_found, np.bool_)
    iou_DG = image.iou_DG()[of_class_D][:, of_class_G]
    best_D = iou_DG.argmax(axis=1)
    overlaps_D = iou_DG.max(axis=1) > min_iou
    difficult_D = image.crowd_G[of_class_G][best_D]
    candidates_D = np.flatnonzero(overlaps_D & ~difficult_D)
    # Detections are in order of their scores: the first of each box finds it.
    _, first = np.unique(best_D[candidates_D], return_index=True)
    right_D = np.zeros(num_found, np.bool_)
    right_D[candidates_D[first]] = True
    return right_D, ~right_D & ~(overlaps_D & difficult_D)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else UNDEFINED
