"""Precision and recall of detections at every score threshold."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolox_jax.evaluation.image_boxes import ImageBoxes
from yolox_jax.evaluation.matching import Matches

_NUM_RECALLS = 101  # 0, 0.01 … 1, as in COCO


class OperatingPoint(NamedTuple):
    """Precision, recall and F1 of the detections with a score of at least `threshold`."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """Precision and recall of N detections, best score first: element n is for the first n + 1 of them. N may be 0."""

    scores: np.ndarray  # [N]
    precision: np.ndarray  # [N]
    recall: np.ndarray  # [N]; all 0 if there are no ground-truth boxes
    num_boxes: int  # ground-truth boxes without crowds

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall, [N]."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / np.where(total > 0, total, 1)

    def interpolated(self) -> np.ndarray:
        """The best precision at a recall of at least 0, 0.01 … 1, [101]. Its mean is AP at the IoU of the matches."""
        # Accumulated from the right: the best precision at this recall or a larger one; 0 beyond the largest recall.
        best = np.append(np.maximum.accumulate(self.precision[::-1])[::-1], 0.0)
        return best[np.searchsorted(self.recall, np.linspace(0, 1, _NUM_RECALLS), side="left")]

    def ap(self) -> float | None:
        """COCO's AP at the IoU of the matches, or None if there are no ground-truth boxes."""
        return float(self.interpolated().mean()) if self.num_boxes else None

    def at(self, threshold: float) -> OperatingPoint:
        """The point at a score threshold; precision is 1 if no detection reaches it."""
        num_kept = int((self.scores >= threshold).sum())
        if not num_kept:
            return OperatingPoint(threshold, 1.0, 0.0, 0.0)
        last = num_kept - 1
        return OperatingPoint(threshold, float(self.precision[last]), float(self.recall[last]), float(self.f1[last]))

    def best(self) -> OperatingPoint:
        """The point of largest F1, at the highest threshold that has it; threshold 1 if there are no detections."""
        # A threshold keeps all detections of equal score, so only the last of them is a candidate.
        is_last_N = np.append(self.scores[1:] < self.scores[:-1], True)[: len(self.scores)]
        candidates = self.scores[is_last_N]
        if not candidates.size:
            return self.at(1.0)
        return self.at(float(candidates[np.argmax(self.f1[is_last_N])]))


def mean_precision(per_class: Sequence[Curve]) -> np.ndarray:
    """Interpolated precision at recall 0, 0.01 … 1, averaged over the classes with boxes, [101]; its mean is AP."""
    defined = [curve.interpolated() for curve in per_class if curve.num_boxes]
    return np.mean(defined, axis=0) if defined else np.zeros(_NUM_RECALLS)


def curves(
    images: Sequence[ImageBoxes], matches: Sequence[Matches], num_classes: int
) -> tuple[Curve, tuple[Curve, ...]]:
    """Computes the curve of all classes together, and the curve of each class."""
    counted = [~match.ignored_D for match in matches]
    score_N = _concatenate([image.score_D[mask] for image, mask in zip(images, counted, strict=True)], np.float64)
    label_N = _concatenate([image.pred_label_D[mask] for image, mask in zip(images, counted, strict=True)], np.int64)
    correct_N = _concatenate([m.true_positive_D[mask] for m, mask in zip(matches, counted, strict=True)], np.bool_)
    gt_labels = _concatenate([image.gt_label_G[~image.crowd_G] for image in images], np.int64)
    num_boxes_C = np.bincount(gt_labels, minlength=num_classes).tolist()

    order = np.argsort(-score_N, kind="stable")
    score_N, label_N, correct_N = score_N[order], label_N[order], correct_N[order]
    per_class = tuple(
        _curve(score_N[label_N == label], correct_N[label_N == label], num_boxes)
        for label, num_boxes in enumerate(num_boxes_C)
    )
    return _curve(score_N, correct_N, sum(num_boxes_C)), per_class


def _curve(score_N: np.ndarray, correct_N: np.ndarray, num_boxes: int) -> Curve:
    num_correct_N = np.cumsum(correct_N)
    precision_N = num_correct_N / np.arange(1, len(score_N) + 1)
    return Curve(score_N, precision_N, num_correct_N / max(num_boxes, 1), num_boxes)


def _concatenate(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts])
