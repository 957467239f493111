"""Labels images that have no labels yet, and names those that are most worth a person's time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolox_jax import storage
from yolox_jax.boxes import xyxy_to_xywh
from yolox_jax.data import images
from yolox_jax.errors import UserError
from yolox_jax.evaluation.image_boxes import ImageBoxes
from yolox_jax.inference.detections import ImageDetections
from yolox_jax.tools.review.suspicions import gather

_UNSURE = 0.15  # objects with less support are not counted as a disagreement


def images_in(folder: str) -> list[Path]:
    """Returns the images directly in a folder, sorted.

    Raises:
      UserError: there is none, or the folder is in a bucket.
    """
    paths = sorted(path for path in storage.local_path(folder).glob("*") if path.suffix.lower() in images.SUFFIXES)
    if not paths:
        raise UserError(f"no image is in {folder}", "give a folder of images")
    return paths


def as_boxes(image_id: int | str, found: ImageDetections) -> ImageBoxes:
    """Returns detections without labels."""
    none = np.zeros(0, np.int64)
    boxes_xyxy, scores = found.boxes_xyxy.astype(np.float64), found.scores.astype(np.float64)
    return ImageBoxes(image_id, np.zeros((0, 4)), none, none.astype(bool), boxes_xyxy, found.labels, scores)


def disagreement(witnesses: Sequence[ImageDetections], num_classes: int) -> float:
    """Returns how many objects of an image the witnesses are unsure of: the sum of 4·p·(1 - p) over their support p.

    An object that all are sure of, or none sees, counts 0; one that half of them see counts 1.
    """
    seen = [as_boxes(0, found) for found in witnesses]
    support_D = gather(seen[0], seen, num_classes).support_D
    unsure_D = support_D[support_D >= _UNSURE].clip(0, 1)
    return float((4 * unsure_D * (1 - unsure_D)).sum())


def to_coco(
    names: Sequence[str], files: Sequence[tuple[str, int, int]], found: Sequence[ImageDetections], threshold: float
) -> dict[str, Any]:
    """Returns a COCO dict of the detections of score `threshold` and above; `files` are name, width and height.

    Each annotation has its score too, which COCO's readers pass over.
    """
    images = [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, (name, width, height) in enumerate(files, 1)
    ]
    annotations: list[dict[str, Any]] = []
    for image, in_image in zip(images, found, strict=True):
        for box, score, label in zip(in_image.boxes_xyxy, in_image.scores, in_image.labels, strict=True):
            if score < threshold:
                continue
            bbox = [round(value, 2) for value in xyxy_to_xywh(box.astype(np.float64)).tolist()]
            record = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": int(label) + 1}
            record |= {"bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0, "score": round(float(score), 4)}
            annotations.append(record)
    categories = [{"id": label, "name": name} for label, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}
