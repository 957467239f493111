"""Finds missed boxes, false positives and confused classes among the detections above a score threshold."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from yolox_jax.evaluation.image_boxes import ImageBoxes
from yolox_jax.evaluation.matching import MIN_IOU, Matches, match


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """The outcome for each box and detection of one image at one score threshold.

    A box detected as another class counts twice: it is missed, and the detection is a false positive.
    """

    missed_G: np.ndarray  # bool
    true_positive_D: np.ndarray  # bool
    false_positive_D: np.ndarray  # bool; a detection that is neither is below the threshold or ignored

    @property
    def count(self) -> int:
        return int(self.missed_G.sum() + self.false_positive_D.sum())


def find_mistakes(image: ImageBoxes, matches: Matches, threshold: float) -> Mistakes:
    """Finds the mistakes of an image whose detections were matched by `match_classes`."""
    # A match never depends on detections of lower score, so the matches also hold for those above the threshold.
    kept_D = (image.score_D >= threshold) & ~matches.ignored_D
    true_positive_D = kept_D & matches.true_positive_D
    missed_G = ~image.crowd_G
    missed_G[matches.gt_index_D[true_positive_D]] = False
    return Mistakes(missed_G, true_positive_D, kept_D & ~matches.true_positive_D)


def confusion_matrix(
    images: Sequence[ImageBoxes],
    matches: Sequence[Matches],
    num_classes: int,
    threshold: float,
    min_iou: float = MIN_IOU,
) -> np.ndarray:
    """Counts boxes by true class (rows; the last is background) and detected class (columns; the last is missed).

    Returns [C + 1, C + 1] int64. True positives are on the diagonal. Each false positive is then matched with a missed
    box of any class; those that overlap none are in the background row.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image, matched in zip(images, matches, strict=True):
        of_image = find_mistakes(image, matched, threshold)
        correct_label = image.pred_label_D[of_image.true_positive_D]
        np.add.at(counts, (correct_label, correct_label), 1)

        wrong_D, missed_G = np.flatnonzero(of_image.false_positive_D), np.flatnonzero(of_image.missed_G)
        no_crowd_G = np.zeros(len(missed_G), np.bool_)
        true_label_D, true_label_G = np.full(len(wrong_D), num_classes), image.gt_label_G[missed_G]
        confused_G = np.zeros(len(missed_G), np.bool_)
        if missed_G.size:
            index_D, confused_D = match(image.iou_DG()[np.ix_(wrong_D, missed_G)], no_crowd_G, min_iou)
            true_label_D[confused_D] = true_label_G[index_D[confused_D]]
            confused_G[index_D[confused_D]] = True
        np.add.at(counts, (true_label_D, image.pred_label_D[wrong_D]), 1)
        np.add.at(counts, (true_label_G[~confused_G], np.full((~confused_G).sum(), num_classes)), 1)
    return counts
