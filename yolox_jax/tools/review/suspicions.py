"""Suspects labels: compares what several witnesses find in an image with the boxes of its file.

Four kinds: `missing` is found and has no label, `spurious` is a label that is not found, `class` is found as another
class, `moved` is found beside the label. The rank is by the doubt of a suspicion, from 0 to 1: how sure the witnesses
are of what they find, times how unsure of the label, times how seldom the file differs from sure detections of that
class. A file that never labels cells at the border has a habit, not hundreds of mistakes.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from yolox_jax.evaluation.image_boxes import ImageBoxes
from yolox_jax.evaluation.matching import match

_MIN_IOU = 0.5  # a label is found by a detection that overlaps it by this
_NEAR_IOU = 0.1  # a detection of its class that overlaps a label by less is another object
_LEAST_SUPPORT = 0.1  # below it, nothing is found


@dataclasses.dataclass(frozen=True)
class Suspicion:
    """One label, or one box without a label, to look at. Boxes are xyxy in pixels of the image."""

    kind: str  # missing, spurious, class or moved
    doubt: float
    image_id: int | str
    gt_index: int | None  # of the image's labels; None: missing
    old_box: tuple[float, ...] | None
    old_label: int | None
    new_box: tuple[float, ...] | None  # None: spurious
    new_label: int | None


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the witnesses say about one image."""

    image: ImageBoxes  # with the detections of all witnesses merged: each object once, best support first
    support_D: np.ndarray  # mean score, over the witnesses, of a detection's box as its class
    support_GC: np.ndarray  # mean score of each label's box as each class
    gt_index_D: np.ndarray  # the label that a detection is matched with, of any class
    matched_D: np.ndarray  # bool


def gather(image: ImageBoxes, witnesses: Sequence[ImageBoxes], num_classes: int) -> Evidence:
    """Merges the detections of the witnesses of an image, and matches them with its labels."""
    boxes = np.concatenate([each.pred_xyxy_D4 for each in witnesses])
    labels = np.concatenate([each.pred_label_D for each in witnesses])
    scores = np.concatenate([each.score_D for each in witnesses])
    support_C = _support(boxes, witnesses, num_classes)
    support = support_C[np.arange(len(labels)), labels] if len(labels) else scores
    order = np.lexsort((-scores, -support))
    kept: list[int] = []
    merged = dataclasses.replace(image, gt_xyxy_G4=boxes)
    iou = dataclasses.replace(merged, pred_xyxy_D4=boxes).iou_DG() if len(boxes) else np.zeros((0, 0))
    for index in order.tolist():  # an object is kept once, whatever its class: as the class that has most support
        if support[index] >= _LEAST_SUPPORT and not (iou[index, kept] > _MIN_IOU).any():
            kept.append(index)
    of_all = dataclasses.replace(image, pred_xyxy_D4=boxes[kept], pred_label_D=labels[kept], score_D=support[kept])
    gt_index_D, matched_D = match(of_all.iou_DG(), np.zeros(len(image.gt_label_G), np.bool_), _MIN_IOU)
    return Evidence(of_all, support[kept], _support(image.gt_xyxy_G4, witnesses, num_classes), gt_index_D, matched_D)


def _support(boxes_xyxy_N4: np.ndarray, witnesses: Sequence[ImageBoxes], num_classes: int) -> np.ndarray:
    """Returns the mean over the witnesses of their best score for each box as each class, [N, C]."""
    support_NC = np.zeros((len(boxes_xyxy_N4), num_classes))
    for each in witnesses:
        near_DN = dataclasses.replace(each, gt_xyxy_G4=boxes_xyxy_N4).iou_DG() >= _MIN_IOU
        best_NC = np.zeros_like(support_NC)
        detection, box = np.nonzero(near_DN)
        np.maximum.at(best_NC, (box, each.pred_label_D[detection]), each.score_D[detection])
        support_NC += best_NC / len(witnesses)
    return support_NC


def suspect(evidence: Sequence[Evidence], num_classes: int) -> list[Suspicion]:
    """Returns the suspicions of all images, the greatest doubt first."""
    habits = _Habits(evidence, num_classes)
    found = [suspicion for each in evidence for suspicion in _of_image(each, habits)]
    return sorted(found, key=lambda suspicion: -suspicion.doubt)


class _Habits:
    """How often the labels of the whole file agree with the witnesses, for each class."""

    def __init__(self, evidence: Sequence[Evidence], num_classes: int):
        detections, labels = collections.defaultdict(list), collections.defaultdict(list)
        for each in evidence:
            for label, support, matched in zip(each.image.pred_label_D, each.support_D, each.matched_D, strict=True):
                detections[int(label)].append((support, matched))
            for label, support_C in zip(each.image.gt_label_G, each.support_GC, strict=True):
                labels[int(label)].append(support_C[label])
        self._detections = {label: np.array(sorted(pairs)) for label, pairs in detections.items()}
        self._found = {label: float(np.median(values)) for label, values in labels.items()}

    def labeled(self, label: int, support: float) -> float:
        """Returns the share of the detections of a class, of half this support or more, that have a label."""
        pairs = self._detections[label]
        return float(pairs[pairs[:, 0] >= support / 2, 1].mean())

    def found(self, label: int) -> float:
        """Returns the median support of the labels of a class: near 0 if the witnesses do not know it."""
        return self._found.get(label, 0.0)


def _of_image(evidence: Evidence, habits: _Habits) -> list[Suspicion]:
    image, num_labels = evidence.image, len(evidence.image.gt_label_G)
    own_G = evidence.support_GC[np.arange(num_labels), image.gt_label_G]
    is_free_G = ~image.crowd_G
    is_free_G[evidence.gt_index_D[evidence.matched_D]] = False
    suspicions = []

    def add(kind: str, doubt: float, label_index: int | None, detection: int | None) -> None:
        old = label_index is not None
        suspicions.append(
            Suspicion(
                kind,
                float(doubt),
                image.image_id,
                label_index,
                tuple(image.gt_xyxy_G4[label_index].tolist()) if old else None,
                int(image.gt_label_G[label_index]) if old else None,
                None if detection is None else tuple(image.pred_xyxy_D4[detection].tolist()),
                None if detection is None else int(image.pred_label_D[detection]),
            )
        )

    iou_DG = image.iou_DG()
    for detection in range(len(evidence.support_D)):
        support, label = evidence.support_D[detection], int(image.pred_label_D[detection])
        if evidence.matched_D[detection]:
            matched = int(evidence.gt_index_D[detection])
            if image.gt_label_G[matched] != label and not image.crowd_G[matched]:
                add("class", support * (1 - own_G[matched]), matched, detection)
            continue
        alone = 1 - iou_DG[detection].max(initial=0.0)  # a second box around a labeled object is no new object
        sure = support * habits.labeled(label, support) * alone
        beside_G = iou_DG[detection] * is_free_G * (image.gt_label_G == label)
        if num_labels and beside_G.max() >= _NEAR_IOU:
            beside = int(beside_G.argmax())
            is_free_G[beside] = False
            add("moved", support * (1 - own_G[beside]), beside, detection)
        elif not (num_labels and (iou_DG[detection] >= _MIN_IOU)[image.crowd_G].any()):
            add("missing", sure, None, detection)
    for label_index in np.flatnonzero(is_free_G).tolist():
        label = int(image.gt_label_G[label_index])
        add("spurious", habits.found(label) * (1 - own_G[label_index]) ** 2, label_index, None)
    return suspicions
