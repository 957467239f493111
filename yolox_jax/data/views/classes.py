"""A view of some classes of a source, or of all of them as one."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolox_jax.data.views.source_view import SourceView
from yolox_jax.errors import UserError
from yolox_jax.types import Example, Source

SINGLE_CLASS = "object"


class ClassesSource(SourceView):
    """Keeps the boxes of the named classes, which get labels in the order given; with `single_class`, all get label 0.

    All images stay: one without a box of these classes is background.
    """

    def __init__(self, source: Source, classes: Sequence[str], single_class: bool):
        super().__init__(source)
        names = tuple(classes) or source.class_names
        if unknown := [name for name in names if name not in source.class_names]:
            raise UserError(
                f"config.data.classes names {', '.join(unknown)}, but the data set has {', '.join(source.class_names)}",
                "name classes of the data set",
            )
        if len(set(names)) < len(names):
            raise UserError(f"config.data.classes has a name twice ({', '.join(names)})", "name each class once")
        self.class_names = (SINGLE_CLASS,) if single_class else names
        self._is_single = single_class  # the data set may have a class of this name
        self._is_kept = np.array([name in names for name in source.class_names])
        place = {name: 0 if single_class else label for label, name in enumerate(names)}
        self._label_of = np.array([place.get(name, 0) for name in source.class_names], np.int32)
        if classes and not any(self.num_boxes(index) for index in range(len(source))):
            raise UserError(
                f"none of the {len(source)} images has a box of config.data.classes ({', '.join(names)})",
                "name classes that both splits have",
            )

    def __getitem__(self, index: int) -> Example:
        example = super().__getitem__(index)
        is_kept = self._is_kept[example.labels]
        labels = self._label_of[example.labels[is_kept]]
        return dataclasses.replace(example, boxes_xyxy=example.boxes_xyxy[is_kept], labels=labels)

    def num_boxes(self, index: int) -> int:
        return len(self.labels(index))

    def labels(self, index: int) -> np.ndarray:
        labels = super().labels(index)
        return self._label_of[labels[self._is_kept[labels]]]

    def ground_truth(self) -> dict[str, Any]:
        """Returns the boxes of these classes, with the ids of the source's categories; a single class has id 1."""
        truth = self._source.ground_truth()
        categories = [each for each, is_kept in zip(truth["categories"], self._is_kept, strict=True) if is_kept]
        kept = {category["id"] for category in categories}
        annotations = [each for each in truth["annotations"] if each["category_id"] in kept]
        if self._is_single:
            annotations = [each | {"category_id": 1} for each in annotations]
            categories = [{"id": 1, "name": SINGLE_CLASS}]
        else:
            categories.sort(key=lambda category: self.class_names.index(category["name"]))
        return truth | {"annotations": annotations, "categories": categories}
