"""The annotations of one split as arrays, for the checks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from yolox_jax.boxes import xywh_to_xyxy


@dataclasses.dataclass(frozen=True)
class SplitAnnotations:
    """The N boxes that training uses, unclipped and ordered by image, and the M images of the split."""

    split: str
    class_names: tuple[str, ...]
    image_ids: tuple[int | str, ...]  # M
    files: tuple[str, ...]  # M, of the images
    sizes_wh: np.ndarray  # [M, 2] float64, pixels
    image_index: np.ndarray  # [N] int64: each box's image, in [0, M)
    labels: np.ndarray  # [N] int64
    boxes_xywh: np.ndarray  # [N, 4] float64, pixels

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """[N, 4] float64, pixels."""
        return xywh_to_xyxy(self.boxes_xywh)

    def record(self, box: int) -> str:
        """Describes a box so that a person finds it: image id, class and position."""
        x, y, w, h = (f"{value:.6g}" for value in self.boxes_xywh[box].tolist())
        name = self.class_names[self.labels[box]]
        return f"image {self.image_ids[self.image_index[box]]}, {name} at x {x}, y {y}, w {w}, h {h}"


def from_ground_truth(split: str, ground_truth: Mapping[str, Any], with_crowds: bool = False) -> SplitAnnotations:
    """Collects the boxes of a source's `ground_truth()`.

    `with_crowds` keeps boxes marked as crowds: those of Pascal VOC are its difficult objects, which training uses.
    """
    images, categories = ground_truth["images"], ground_truth["categories"]
    index_of = {image["id"]: index for index, image in enumerate(images)}
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    boxes = [box for box in ground_truth["annotations"] if with_crowds or not box["iscrowd"]]
    boxes.sort(key=lambda box: index_of[box["image_id"]])
    return SplitAnnotations(
        split=split,
        class_names=tuple(str(category["name"]) for category in categories),
        image_ids=tuple(image["id"] for image in images),
        files=tuple(str(image["file_name"]) for image in images),
        sizes_wh=np.array([(image["width"], image["height"]) for image in images], np.float64).reshape(-1, 2),
        image_index=np.array([index_of[box["image_id"]] for box in boxes], np.int64),
        labels=np.array([label_of[box["category_id"]] for box in boxes], np.int64),
        boxes_xywh=np.array([box["bbox"] for box in boxes], np.float64).reshape(-1, 4),
    )
