"""What was missed, found wrongly or taken for another class, once detections below a score are dropped."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from yolox_jax.evaluation.image_boxes import ImageBoxes
from yolox_jax.evaluation.matching import MIN_IOU, Matches, match


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """Of one image at one threshold. A box taken for another class is both missed and found wrongly."""

    missed_G: np.ndarray  # bool
    right_D: np.ndarray  # bool
    wrong_D: np.ndarray  # bool; neither this nor right: below the threshold, or ignored

    @property
    def count(self) -> int:
        return int(self.missed_G.sum() + self.wrong_D.sum())


def mistakes(image: ImageBoxes, matches: Matches, threshold: float) -> Mistakes:
    """Of an image whose detections were matched with `match_classes`."""
    # Better detections never depend on worse ones, so the matches hold with the worse ones gone.
    kept_D = (image.score_D >= threshold) & ~matches.ignored_D
    right_D = kept_D & matches.found_D
    missed_G = ~image.crowd_G
    missed_G[matches.gt_index_D[right_D]] = False
    return Mistakes(missed_G, right_D, kept_D & ~matches.found_D)


def confusion_matrix(
    images: Sequence[ImageBoxes],
    matches: Sequence[Matches],
    num_classes: int,
    threshold: float,
    min_iou: float = MIN_IOU,
) -> np.ndarray:
    """[C + 1, C + 1] counts: the true class by the class found; the last row is background, the last column missed.

    The diagonal are the boxes found. A wrong detection is then given the best box, of any class, that none has found.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image, matched in zip(images, matches, strict=True):
        of_image = mistakes(image, matched, threshold)
        label_right = image.found_label_D[of_image.right_D]
        np.add.at(counts, (label_right, label_right), 1)

        wrong_D, missed_G = np.flatnonzero(of_image.wrong_D), np.flatnonzero(of_image.missed_G)
        no_crowd = np.zeros(len(missed_G), np.bool_)
        true_label_D, true_label_G = np.full(len(wrong_D), num_classes), image.gt_label_G[missed_G]
        taken_G = np.zeros(len(missed_G), np.bool_)
        if missed_G.size:
            index_D, confused_D = match(image.iou_DG()[np.ix_(wrong_D, missed_G)], no_crowd, min_iou)
            true_label_D[confused_D] = true_label_G[index_D[confused_D]]
            taken_G[index_D[confused_D]] = True
        np.add.at(counts, (true_label_D, image.found_label_D[wrong_D]), 1)
        np.add.at(counts, (true_label_G[~taken_G], np.full((~taken_G).sum(), num_classes)), 1)
    return counts
