"""Precision and recall of detections over all thresholds of their score."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolox_jax.evaluation.image_boxes import ImageBoxes
from yolox_jax.evaluation.matching import Matches

_NUM_RECALLS = 101  # COCO's 0, 0.01 … 1


class OperatingPoint(NamedTuple):
    """What keeping the detections with a score of at least `threshold` gives."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """N detections, best score first: what keeping the first n of them would give. Empty where there is none."""

    scores: np.ndarray  # [N]
    precision: np.ndarray  # [N]
    recall: np.ndarray  # [N]: 0 where there is no box to find
    num_boxes: int

    @property
    def f1(self) -> np.ndarray:
        """[N]: the harmonic mean of the two."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / np.where(both > 0, both, 1)

    def interpolated(self) -> np.ndarray:
        """[101]: the best precision at a recall of at least 0, 0.01 … 1; its mean is COCO's AP at the matches' IoU."""
        # From the right: the best precision at this recall or a larger one, and 0 beyond the largest.
        best = np.append(np.maximum.accumulate(self.precision[::-1])[::-1], 0.0)
        return best[np.searchsorted(self.recall, np.linspace(0, 1, _NUM_RECALLS), side="left")]

    def ap(self) -> float | None:
        """None where there is no box to find."""
        return float(self.interpolated().mean()) if self.num_boxes else None

    def at(self, threshold: float) -> OperatingPoint:
        """Precision is 1 where nothing is kept."""
        num_kept = int((self.scores >= threshold).sum())
        if not num_kept:
            return OperatingPoint(threshold, 1.0, 0.0, 0.0)
        last = num_kept - 1
        return OperatingPoint(threshold, float(self.precision[last]), float(self.recall[last]), float(self.f1[last]))

    def best(self) -> OperatingPoint:
        """The threshold of the largest F1; the highest one where several have it. 1 where nothing is found."""
        is_last_N = np.append(self.scores[1:] < self.scores[:-1], True)[: len(self.scores)]  # equal scores go together
        candidates = self.scores[is_last_N]
        if not candidates.size:
            return self.at(1.0)
        return self.at(float(candidates[np.argmax(self.f1[is_last_N])]))


def curves(
    images: Sequence[ImageBoxes], matches: Sequence[Matches], num_classes: int
) -> tuple[Curve, tuple[Curve, ...]]:
    """Of all classes together, and of each."""
    counts = [~match.ignored_D for match in matches]
    score_N = _joined([image.score_D[each] for image, each in zip(images, counts, strict=True)], np.float64)
    label_N = _joined([image.found_label_D[each] for image, each in zip(images, counts, strict=True)], np.int64)
    found_N = _joined([match.found_D[each] for match, each in zip(matches, counts, strict=True)], np.bool_)
    box_labels = _joined([image.gt_label_G[~image.crowd_G] for image in images], np.int64)
    num_boxes_C = np.bincount(box_labels, minlength=num_classes).tolist()

    order = np.argsort(-score_N, kind="stable")
    score_N, label_N, found_N = score_N[order], label_N[order], found_N[order]
    per_class = tuple(
        _curve(score_N[label_N == label], found_N[label_N == label], num_boxes)
        for label, num_boxes in enumerate(num_boxes_C)
    )
    return _curve(score_N, found_N, sum(num_boxes_C)), per_class


def _curve(score_N: np.ndarray, found_N: np.ndarray, num_boxes: int) -> Curve:
    num_right_N = np.cumsum(found_N)
    precision_N = num_right_N / np.arange(1, len(score_N) + 1)
    return Curve(score_N, precision_N, num_right_N / max(num_boxes, 1), num_boxes)


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts])
