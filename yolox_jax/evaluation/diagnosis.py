"""Where detections go wrong on a split: everything that plots and tables of an evaluation show."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_jax.evaluation.image_boxes import ImageBoxes, by_image
from yolox_jax.evaluation.matching import Matches, match_classes
from yolox_jax.evaluation.mistakes import Mistakes, confusion_matrix, mistakes
from yolox_jax.evaluation.precision_recall import Curve, OperatingPoint, curves


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Detections matched with boxes of their class at IoU 0.5."""

    class_names: tuple[str, ...]
    images: list[ImageBoxes]
    matches: list[Matches]
    together: Curve  # all classes in one
    per_class: tuple[Curve, ...]

    @property
    def best(self) -> OperatingPoint:
        """The threshold of the score with the largest F1, all classes counted together."""
        return self.together.best()

    def mean_precision(self) -> np.ndarray:
        """[101]: the mean of the classes' interpolated precision at recall 0, 0.01 … 1; its own mean is COCO's AP50."""
        defined = [of_class.interpolated() for of_class in self.per_class if of_class.num_boxes]
        return np.mean(defined, axis=0) if defined else np.zeros(101)

    def confusion(self) -> np.ndarray:
        """`mistakes.confusion_matrix` at the best threshold."""
        return confusion_matrix(self.images, self.matches, len(self.class_names), self.best.threshold)

    def worst(self, most: int) -> list[tuple[ImageBoxes, Mistakes]]:
        """The images with the most missed and wrong boxes at the best threshold; those without any are never among them."""
        judged = [
            (image, mistakes(image, match, self.best.threshold))
            for image, match in zip(self.images, self.matches, strict=True)
        ]
        judged = [each for each in judged if each[1].count]
        return sorted(judged, key=lambda each: -each[1].count)[:most]

    def table(self) -> list[dict[str, Any]]:
        """A row for all and for each class: AP50, what the best threshold gives, and the class's own best threshold."""
        mean_ap = float(self.mean_precision().mean()) if self.together.num_boxes else None
        rows = []
        for name, of_class, ap in (
            ("all", self.together, mean_ap),
            *((name, each, each.ap()) for name, each in zip(self.class_names, self.per_class, strict=True)),
        ):
            point, own = of_class.at(self.best.threshold), of_class.best()
            row = {"class": name, "boxes": of_class.num_boxes, "AP50": ap, "threshold": point.threshold}
            row |= {"precision": point.precision, "recall": point.recall, "F1": point.f1}
            rows.append(row | {"best_threshold": own.threshold, "best_F1": own.f1})
        return rows


def diagnose(ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> Diagnosis:
    """Of a COCO annotation dict and detections in COCO's form."""
    images = by_image(ground_truth, detections)
    matches = [match_classes(image) for image in images]
    names = tuple(str(category["name"]) for category in ground_truth["categories"])
    return Diagnosis(names, images, matches, *curves(images, matches, len(names)))
