"""ImageDetections: the objects found in one image, in the pixels of that image."""

import collections
import dataclasses
import importlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from yolox_jax import boxes
from yolox_jax.errors import UserError
from yolox_jax.inference.inputs import ImageInput, as_bgr
from yolox_jax.types import Detections
from yolox_jax.visualize.drawing import draw_boxes

if TYPE_CHECKING:
    import pandas
    import supervision

_PIXELS_PER_SIZE = 800  # pixels of the image's longer side for each step in the size of lines and captions


@dataclasses.dataclass(frozen=True)
class ImageDetections:
    """The objects of one image, best score first; boxes are clipped to the image."""

    boxes_xyxy: np.ndarray  # [n, 4] float32, pixels of the image
    scores: np.ndarray  # [n] float32
    labels: np.ndarray  # [n] int32
    class_names: tuple[str, ...]  # all classes of the detector: names[i] is class_names[labels[i]]

    @property
    def names(self) -> list[str]:
        """The class name of each object."""
        return [self.class_names[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.scores)

    def __str__(self) -> str:
        counts = collections.Counter(self.names)
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"

    def draw(self, image: ImageInput) -> np.ndarray:
        """Draws the objects on a copy of the image, [h, w, 3] uint8 RGB; takes any image that Detector takes."""
        return np.ascontiguousarray(self.draw_bgr(as_bgr(image))[..., ::-1])

    def draw_bgr(self, image_HW3: np.ndarray) -> np.ndarray:
        """Draws the objects on a copy of a BGR array [h, w, 3] uint8, OpenCV's channel order."""
        captions = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]
        size = max(1, round(max(image_HW3.shape[:2]) / _PIXELS_PER_SIZE))
        # Reversed, so that the best object is drawn last and lies on top.
        return draw_boxes(image_HW3, self.boxes_xyxy[::-1], self.labels[::-1].tolist(), captions[::-1], size)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Returns one dict per object, ready for json: name, label, score, box_xyxy."""
        return [
            {"name": name, "label": int(label), "score": float(score), "box_xyxy": [float(x) for x in box]}
            for name, label, score, box in zip(self.names, self.labels, self.scores, self.boxes_xyxy, strict=True)
        ]

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Returns COCO's result format: image_id, category_id (the label), bbox xywh, score."""
        xywh_n4 = boxes.xyxy_to_xywh(self.boxes_xyxy)
        return [
            {"image_id": image_id, "category_id": int(label), "bbox": [float(x) for x in box], "score": float(score)}
            for label, box, score in zip(self.labels, xywh_n4, self.scores, strict=True)
        ]

    def to_dataframe(self) -> "pandas.DataFrame":
        """Returns a pandas DataFrame with a row per object: name, label, score, x1, y1, x2, y2.

        Raises:
          UserError: pandas is not installed.
        """
        pandas = _optional("pandas")
        columns = {"name": self.names, "label": self.labels, "score": self.scores}
        return pandas.DataFrame(columns | dict(zip(("x1", "y1", "x2", "y2"), self.boxes_xyxy.T, strict=True)))

    def to_supervision(self) -> "supervision.Detections":
        """Returns supervision's Detections, for its annotators, zones and trackers; class_name is in `data`.

        Raises:
          UserError: supervision is not installed.
        """
        supervision = _optional("supervision")
        return supervision.Detections(
            xyxy=self.boxes_xyxy.reshape(-1, 4),
            confidence=self.scores,
            class_id=self.labels.astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def to_yolo_txt(self, image_hw: tuple[int, int], with_scores: bool = False) -> str:
        """Returns the lines of a YOLO label file: label, center and size as fractions of the image, then the score."""
        height, width = image_hw
        cxcywh_n4 = boxes.xyxy_to_cxcywh(self.boxes_xyxy) / np.array([width, height, width, height], np.float32)
        scores = [f" {score:.6f}" if with_scores else "" for score in self.scores]
        rows = zip(self.labels, cxcywh_n4, scores, strict=True)
        return "".join(f"{label} {' '.join(f'{x:.6f}' for x in box)}{score}\n" for label, box, score in rows)

    def crops(self, image_HW3: np.ndarray) -> list[np.ndarray]:
        """Cuts each object out of the image, at least one pixel of it."""
        height, width = image_HW3.shape[:2]
        crops = []
        for x1, y1, x2, y2 in self.boxes_xyxy:
            left, top = min(int(x1), width - 1), min(int(y1), height - 1)
            crops.append(image_HW3[top : max(top + 1, math.ceil(y2)), left : max(left + 1, math.ceil(x2))])
        return crops


def _optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"this needs the package {package} ({error})", f"pip install {package}") from error


def from_input_pixels(
    found: Detections, row: int, ratio: float, image_hw: tuple[int, int], class_names: tuple[str, ...]
) -> ImageDetections:
    """Converts row `row` of a batch of detections to pixels of its image, which was letterboxed by `ratio`."""
    mask_D = np.asarray(found.mask[row])
    boxes_xyxy = boxes.clip_xyxy(np.asarray(found.boxes[row])[mask_D] / ratio, image_hw)
    inside = boxes.min_sides_xyxy(boxes_xyxy) > 0  # a box that lies only in the padding has no area after clipping
    scores, labels = np.asarray(found.scores[row])[mask_D], np.asarray(found.labels[row])[mask_D]
    return ImageDetections(boxes_xyxy[inside].astype(np.float32), scores[inside], labels[inside], class_names)
