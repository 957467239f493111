"""Computes Pascal VOC's average precision as the reference's voc_eval.py does.

That code numbers pixels from 1 and a box includes its last pixel, so its width is x2 − x1 + 1. Here coordinates are
pixel edges, so the width is x2 − x1; a pair of boxes has the same IoU in both conventions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_jax.evaluation.ap_result import UNDEFINED, ApResult, ClassAp
from yolox_jax.evaluation.image_boxes import ImageBoxes, by_image

_IOUS = np.linspace(0.5, 0.95, 10)
# Not exact tenths: the fourth is slightly above 0.3, so a recall of 0.3 does not reach it, as in the reference.
_RECALLS_07 = np.arange(0.0, 1.1, 0.1)


def compute_ap(ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> ApResult:
    """Computes mAP07 (eleven recall points) and mAP12 (area under the curve), both at IoU 0.5.

    AP and AP07 are mAP12 and mAP07 averaged over IoU 0.5 to 0.95. The reference's map_5095 is AP, or AP07 for the years
    before 2010. AP50 equals mAP12. `iscrowd` marks VOC's difficult boxes: they need not be detected, and a detection of
    one is ignored. Classes that have no other boxes are left out of the means.
    """
    images = by_image(ground_truth, detections)
    names = [str(category["name"]) for category in ground_truth["categories"]]
    box_labels = np.concatenate([np.zeros(0, np.int64), *(image.gt_label_G[~image.crowd_G] for image in images)])
    num_boxes_C = np.bincount(box_labels, minlength=len(names)).tolist()
    score_N, label_N, correct_TN, wrong_TN = _judge_all(images)

    per_class, aps_07 = [], []
    for label, (name, num_boxes) in enumerate(zip(names, num_boxes_C, strict=True)):
        if not num_boxes:
            per_class.append(ClassAp(name, UNDEFINED, UNDEFINED, 0))
            continue
        of_class = np.flatnonzero(label_N == label)
        of_class = of_class[np.argsort(-score_N[of_class], kind="stable")]
        num_correct_TN, num_wrong_TN = (np.cumsum(each[:, of_class], axis=1) for each in (correct_TN, wrong_TN))
        recall_TN = num_correct_TN / num_boxes
        precision_TN = num_correct_TN / np.maximum(num_correct_TN + num_wrong_TN, 1)
        areas = [_area_under_curve(*curve) for curve in zip(recall_TN, precision_TN, strict=True)]
        per_class.append(ClassAp(name, float(np.mean(areas)), areas[0], num_boxes))
        aps_07.append([_eleven_point_ap(*curve) for curve in zip(recall_TN, precision_TN, strict=True)])
    defined = [of_class for of_class in per_class if of_class.num_boxes]
    ap50 = _mean([of_class.AP50 for of_class in defined])
    stats = {"AP": _mean([of_class.AP for of_class in defined]), "AP50": ap50}
    stats |= {"mAP07": _mean([aps[0] for aps in aps_07]), "mAP12": ap50}
    stats |= {"AP07": _mean([float(np.mean(aps)) for aps in aps_07])}
    return ApResult(stats, tuple(per_class))


def _eleven_point_ap(recall_N: np.ndarray, precision_N: np.ndarray) -> float:
    """AP of VOC 2007: the best precision at a recall of at least 0, 0.1 … 1, averaged."""
    return float(np.mean([precision_N[recall_N >= least].max(initial=0.0) for least in _RECALLS_07]))


def _area_under_curve(recall_N: np.ndarray, precision_N: np.ndarray) -> float:
    """AP of VOC 2010 and later: the area under the precision, made monotonically decreasing in recall."""
    envelope_N = np.maximum.accumulate(precision_N[::-1])[::-1]
    return float(np.sum(np.diff(recall_N, prepend=0.0) * envelope_N))


def _judge_all(images: Sequence[ImageBoxes]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns scores and labels of all detections, [N], and masks of the correct and wrong ones at T IoUs, [T, N]."""
    scores, labels = [np.zeros(0)], [np.zeros(0, np.int64)]
    correct, wrong = [np.zeros((len(_IOUS), 0), np.bool_)], [np.zeros((len(_IOUS), 0), np.bool_)]
    for image in images:
        iou_DG = image.iou_DG()
        for label in np.unique(image.pred_label_D).tolist():
            of_class_D, of_class_G = image.pred_label_D == label, image.gt_label_G == label
            correct_TD, wrong_TD = _judge(iou_DG[of_class_D][:, of_class_G], image.crowd_G[of_class_G])
            scores.append(image.score_D[of_class_D])
            labels.append(image.pred_label_D[of_class_D])
            correct.append(correct_TD)
            wrong.append(wrong_TD)
    correct_TN, wrong_TN = (np.concatenate(parts, axis=1) for parts in (correct, wrong))
    return np.concatenate(scores), np.concatenate(labels), correct_TN, wrong_TN


def _judge(iou_DG: np.ndarray, difficult_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Marks the detections of a class in an image, best score first, as correct or wrong, [T, D] each.

    A detection of a difficult box is neither. Unlike in COCO, only the box of largest IoU counts: if a better detection
    has it already, the detection is wrong.
    """
    correct_TD = np.zeros((len(_IOUS), len(iou_DG)), np.bool_)
    if not iou_DG.size:
        return correct_TD, ~correct_TD
    best_D = iou_DG.argmax(axis=1)
    overlaps_TD = iou_DG.max(axis=1)[None, :] > _IOUS[:, None]
    for correct_D, overlaps_D in zip(correct_TD, overlaps_TD, strict=True):
        candidates_D = np.flatnonzero(overlaps_D & ~difficult_G[best_D])
        _, first = np.unique(best_D[candidates_D], return_index=True)  # the first detection of each box
        correct_D[candidates_D[first]] = True
    return correct_TD, ~correct_TD & ~(overlaps_TD & difficult_G[best_D][None, :])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else UNDEFINED
