"""What a detector found in one image."""

import collections
import dataclasses
from typing import Any

import numpy as np

from yolox_jax.inference.inputs import ImageInput, as_bgr
from yolox_jax.types import Detections
from yolox_jax.visualize.drawing import draw_boxes

_PIXELS_PER_SIZE = 800  # of the longer side: lines and captions grow with the picture


@dataclasses.dataclass(frozen=True)
class ImageDetections:
    """The objects of one image, best first; boxes in its own pixels, clipped to it."""

    boxes_xyxy: np.ndarray  # [n, 4] float32
    scores: np.ndarray  # [n] float32
    labels: np.ndarray  # [n] int32
    class_names: tuple[str, ...]  # of the detector; names[i] is class_names[labels[i]]

    @property
    def names(self) -> list[str]:
        """The class of each object."""
        return [self.class_names[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.scores)

    def __str__(self) -> str:
        counts = collections.Counter(self.names)
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"

    def draw(self, image: ImageInput) -> np.ndarray:
        """[h, w, 3] uint8 RGB: a copy of the image, given in any form a detector takes, with the objects on it."""
        return np.ascontiguousarray(self.draw_bgr(as_bgr(image))[..., ::-1])

    def draw_bgr(self, image_HW3: np.ndarray) -> np.ndarray:
        """The same of and as an array of BGR, OpenCV's order."""
        captions = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]
        size = max(1, round(max(image_HW3.shape[:2]) / _PIXELS_PER_SIZE))
        # The best last, so that it lies on top.
        return draw_boxes(image_HW3, self.boxes_xyxy[::-1], self.labels[::-1].tolist(), captions[::-1], size)

    def as_dicts(self) -> list[dict[str, Any]]:
        """A dict for each object, ready for json: name, label, score, box_xyxy."""
        return [
            {"name": name, "label": int(label), "score": float(score), "box_xyxy": [float(x) for x in box]}
            for name, label, score, box in zip(self.names, self.labels, self.scores, self.boxes_xyxy, strict=True)
        ]


def from_input_pixels(
    found: Detections, row: int, ratio: float, image_hw: tuple[int, int], class_names: tuple[str, ...]
) -> ImageDetections:
    """Row `row` of a batch's detections, for an image that was letterboxed at the scale `ratio`."""
    kept = np.asarray(found.mask[row])
    height, width = image_hw
    boxes_xyxy = np.clip(np.asarray(found.boxes[row])[kept] / ratio, 0, (width, height, width, height))
    inside = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1)  # not those in the padding alone
    scores, labels = np.asarray(found.scores[row])[kept], np.asarray(found.labels[row])[kept]
    return ImageDetections(boxes_xyxy[inside].astype(np.float32), scores[inside], labels[inside], class_names)
