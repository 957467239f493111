"""All boxes of a split as arrays: what checks of annotations look at."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from yolox_jax.boxes import xywh_to_xyxy


@dataclasses.dataclass(frozen=True)
class Annotated:
    """The boxes of a split that are learnt, unclipped, in the order of its images. n boxes of m images."""

    split: str
    class_names: tuple[str, ...]
    image_ids: tuple[int | str, ...]
    files: tuple[str, ...]  # of the images
    sizes_wh: np.ndarray  # [m, 2] float64
    images: np.ndarray  # [n] int64: index of each box's image
    labels: np.ndarray  # [n] int64
    boxes_xywh: np.ndarray  # [n, 4] float64, pixels

    @property
    def corners_xyxy(self) -> np.ndarray:
        """[n, 4]."""
        return xywh_to_xyxy(self.boxes_xywh)

    def record(self, box: int) -> str:
        """Where box `box` is, for a person."""
        x, y, w, h = (f"{value:.6g}" for value in self.boxes_xywh[box].tolist())
        name = self.class_names[self.labels[box]]
        return f"image {self.image_ids[self.images[box]]}, {name} at x {x}, y {y}, w {w}, h {h}"


def from_ground_truth(split: str, ground_truth: Mapping[str, Any], with_crowds: bool = False) -> Annotated:
    """Of a source's `ground_truth()`; with crowds where those are VOC's difficult boxes, which are learnt."""
    images, categories = ground_truth["images"], ground_truth["categories"]
    index_of = {image["id"]: index for index, image in enumerate(images)}
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    boxes = [box for box in ground_truth["annotations"] if with_crowds or not box["iscrowd"]]
    boxes.sort(key=lambda box: index_of[box["image_id"]])
    return Annotated(
        split=split,
        class_names=tuple(str(category["name"]) for category in categories),
        image_ids=tuple(image["id"] for image in images),
        files=tuple(str(image["file_name"]) for image in images),
        sizes_wh=np.array([(image["width"], image["height"]) for image in images], np.float64).reshape(-1, 2),
        images=np.array([index_of[box["image_id"]] for box in boxes], np.int64),
        labels=np.array([label_of[box["category_id"]] for box in boxes], np.int64),
        boxes_xywh=np.array([box["bbox"] for box in boxes], np.float64).reshape(-1, 4),
    )
