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


def curve(images: Sequence[ImageBoxes], matches: Sequence[Matches], label: int | None = None) -> Curve:
    """Of one class, or where `label` is None of all classes together."""
    scores, found, num_boxes = [np.zeros(0)], [np.zeros(0, np.bool_)], 0
    for image, match in zip(images, matches, strict=True):
        counts_D = ~match.ignored_D & ((image.found_label_D == label) | (label is None))
        counts_G = ~image.crowd_G & ((image.gt_label_G == label) | (label is None))
        scores.append(image.score_D[counts_D])
        found.append(match.found_D[counts_D])
        num_boxes += int(counts_G.sum())
    score_N, found_N = np.concatenate(scores), np.concatenate(found)
    order = np.argsort(-score_N, kind="stable")
    num_right_N = np.cumsum(found_N[order])
    return Curve(
        scores=score_N[order],
        precision=num_right_N / np.arange(1, len(score_N) + 1),
        recall=num_right_N / max(num_boxes, 1),
        num_boxes=num_boxes,
    )
