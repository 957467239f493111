"""Diagnosis: precision, recall and mistakes of the detections on a split, for the plots and tables of eval.py."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_jax.evaluation.error_kinds import ErrorKind, error_kinds
from yolox_jax.evaluation.image_boxes import ImageBoxes, by_image
from yolox_jax.evaluation.matching import Matches, match_classes
from yolox_jax.evaluation.mistakes import Mistakes, confusion_matrix, find_mistakes
from yolox_jax.evaluation.precision_recall import Curve, OperatingPoint, curves, mean_precision


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The detections of a split, matched with the ground-truth boxes of their class at IoU 0.5."""

    class_names: tuple[str, ...]
    images: list[ImageBoxes]
    matches: list[Matches]
    all_classes: Curve  # detections of all classes in one curve
    per_class: tuple[Curve, ...]  # in the order of the labels

    @functools.cached_property
    def best(self) -> OperatingPoint:
        """The operating point of largest F1, with the boxes of all classes counted together."""
        return self.all_classes.best()

    def mean_precision(self) -> np.ndarray:
        """Interpolated precision at recall 0, 0.01 … 1, averaged over classes, [101]; its mean is COCO's AP50."""
        return mean_precision(self.per_class)

    def confusion(self) -> np.ndarray:
        """The confusion matrix at the best score threshold, as `mistakes.confusion_matrix` defines it."""
        return confusion_matrix(self.images, self.matches, len(self.class_names), self.best.threshold)

    def errors(self) -> list[ErrorKind]:
        """The mistakes by kind, counted at the best score threshold, with the AP50 that each kind costs."""
        return error_kinds(self.images, self.matches, len(self.class_names), self.best.threshold)

    def worst(self, most: int) -> list[tuple[ImageBoxes, Mistakes]]:
        """Returns up to `most` images, those with the most mistakes at the best threshold; each has at least one."""
        judged = [
            (image, find_mistakes(image, match, self.best.threshold))
            for image, match in zip(self.images, self.matches, strict=True)
        ]
        with_mistakes = [(image, mistakes) for image, mistakes in judged if mistakes.count]
        return sorted(with_mistakes, key=lambda pair: -pair[1].count)[:most]

    def table(self) -> list[dict[str, Any]]:
        """Returns a row for all classes and one for each class.

        A row has AP50; precision, recall and F1 at the best score threshold over all classes; and the best threshold
        and F1 of the class itself.
        """
        mean_ap = float(self.mean_precision().mean()) if self.all_classes.num_boxes else None
        rows = []
        for name, curve, ap in (
            ("all", self.all_classes, mean_ap),
            *((name, curve, curve.ap()) for name, curve in zip(self.class_names, self.per_class, strict=True)),
        ):
            point, own = curve.at(self.best.threshold), curve.best()
            row = {"class": name, "boxes": curve.num_boxes, "AP50": ap, "threshold": point.threshold}
            row |= {"precision": point.precision, "recall": point.recall, "F1": point.f1}
            rows.append(row | {"best_threshold": own.threshold, "best_F1": own.f1})
        return rows


def diagnose(ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> Diagnosis:
    """Diagnoses detections in COCO's result format against a COCO annotation dict."""
    images = by_image(ground_truth, detections)
    matches = [match_classes(image) for image in images]
    names = tuple(str(category["name"]) for category in ground_truth["categories"])
    return Diagnosis(names, images, matches, *curves(images, matches, len(names)))
