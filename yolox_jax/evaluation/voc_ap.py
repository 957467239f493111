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

    AP is mAP12 averaged over IoU 0.5 to 0.95, and AP07 is mAP07 so: the reference's map_5095 is AP, or AP07 for the years
    before 2010. AP50 is mAP12. A box marked as a crowd is a difficult one: neither missed nor what finds it wrong. A
    class without other boxes is left out of the means.
    """
    images = by_image(ground_truth, detections)
    names = [str(category["name"]) for category in ground_truth["categories"]]
    box_labels = np.concatenate([np.zeros(0, np.int64), *(image.gt_label_G[~image.crowd_G] for image in images)])
    num_boxes_C = np.bincount(box_labels, minlength=len(names)).tolist()
    score_N, label_N, right_TN, wrong_TN = _judge_all(images)

    per_class, aps_07 = [], []
    for label, (name, num_boxes) in enumerate(zip(names, num_boxes_C, strict=True)):
        if not num_boxes:
            per_class.append(ClassAp(name, UNDEFINED, UNDEFINED, 0))
            continue
        of_class = np.flatnonzero(label_N == label)
        of_class = of_class[np.argsort(-score_N[of_class], kind="stable")]
        num_right_TN, num_wrong_TN = (np.cumsum(each[:, of_class], axis=1) for each in (right_TN, wrong_TN))
        recall_TN, precision_TN = num_right_TN / num_boxes, num_right_TN / np.maximum(num_right_TN + num_wrong_TN, 1)
        areas = [area(*each) for each in zip(recall_TN, precision_TN, strict=True)]
        per_class.append(ClassAp(name, float(np.mean(areas)), areas[0], num_boxes))
        aps_07.append([eleven_points(*each) for each in zip(recall_TN, precision_TN, strict=True)])
    defined = [of_class for of_class in per_class if of_class.num_boxes]
    ap50 = _mean([of_class.AP50 for of_class in defined])
    stats = {"AP": _mean([of_class.AP for of_class in defined]), "AP50": ap50}
    stats |= {"mAP07": _mean([aps[0] for aps in aps_07]), "mAP12": ap50}
    stats |= {"AP07": _mean([float(np.mean(aps)) for aps in aps_07])}
    return ApResult(stats, tuple(per_class))


def eleven_points(recall_N: np.ndarray, precision_N: np.ndarray) -> float:
    """The mean over eleven recalls of the best precision at that recall or more."""
    return float(np.mean([precision_N[recall_N >= each].max(initial=0.0) for each in _RECALLS_07]))


def area(recall_N: np.ndarray, precision_N: np.ndarray) -> float:
    """The area under the precision, which is first made not to rise with the recall."""
    envelope_N = np.maximum.accumulate(precision_N[::-1])[::-1]
    return float(np.sum(np.diff(recall_N, prepend=0.0) * envelope_N))


def _judge_all(images: Sequence[ImageBoxes]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Score and label of all N detections, [N], and whether each is right and is wrong at each of the T IoUs, [T, N]."""
    scores, labels = [np.zeros(0)], [np.zeros(0, np.int64)]
    right, wrong = [np.zeros((len(_IOUS), 0), np.bool_)], [np.zeros((len(_IOUS), 0), np.bool_)]
    for image in images:
        iou_DG = image.iou_DG()
        for label in np.unique(image.found_label_D).tolist():
            of_class_D, of_class_G = image.found_label_D == label, image.gt_label_G == label
            right_TD, wrong_TD = _judge(iou_DG[of_class_D][:, of_class_G], image.crowd_G[of_class_G])
            scores.append(image.score_D[of_class_D])
            labels.append(image.found_label_D[of_class_D])
            right.append(right_TD)
            wrong.append(wrong_TD)
    return np.concatenate(scores), np.concatenate(labels), np.concatenate(right, axis=1), np.concatenate(wrong, axis=1)


def _judge(iou_DG: np.ndarray, difficult_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each detection of a class, best score first, is right, and whether it is wrong, [T, D]; on a difficult box
    it is neither.

    Unlike in COCO, a detection looks at the box of the largest IoU only: where that is found already, it is wrong.
    """
    right_TD = np.zeros((len(_IOUS), len(iou_DG)), np.bool_)
    if not iou_DG.size:
        return right_TD, ~right_TD
    best_D = iou_DG.argmax(axis=1)
    overlaps_TD = iou_DG.max(axis=1)[None, :] > _IOUS[:, None]
    for right_D, overlaps_D in zip(right_TD, overlaps_TD, strict=True):
        candidates_D = np.flatnonzero(overlaps_D & ~difficult_G[best_D])
        _, first = np.unique(best_D[candidates_D], return_index=True)  # of each box: that one finds it
        right_D[candidates_D[first]] = True
    return right_TD, ~right_TD & ~(overlaps_TD & difficult_G[best_D][None, :])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else UNDEFINED
