"""Pictures of detections, on a sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolox_jax.boxes import xywh_to_xyxy
from yolox_jax.types import Source
from yolox_jax.visualize.drawing import draw_boxes

TITLE_HEIGHT = 18
_MIN_SHOWN_SCORE = 0.3
CELL = 320  # pixels a side of one image on a sheet


def fit(image_HW3: np.ndarray, cell: int = CELL) -> tuple[np.ndarray, float]:
    """The image with `cell` pixels on its longer side, and how many times as large it is now."""
    scale = cell / max(image_HW3.shape[:2])
    size = max(1, round(image_HW3.shape[1] * scale)), max(1, round(image_HW3.shape[0] * scale))
    return cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), scale


def sheet(images: Sequence[np.ndarray], columns: int = 4, cell: int = CELL) -> np.ndarray:
    """Images of at most `cell` pixels a side in a grid, grey where nothing is."""
    rows = -(-len(images) // columns)
    canvas = np.full((rows * cell, min(columns, len(images)) * cell, 3), 114, np.uint8)
    for place, image in enumerate(images):
        y, x = place // columns * cell, place % columns * cell
        canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas


def titled(image_HW3: np.ndarray, title: str, width: int) -> np.ndarray:
    """The image `width` pixels wide, grey where it is not, under a black line with white text, cut off where too long."""
    line = np.zeros((TITLE_HEIGHT, width, 3), np.uint8)
    cv2.putText(line, title, (2, TITLE_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    image = np.full((image_HW3.shape[0], width, 3), 114, np.uint8)
    image[:, : image_HW3.shape[1]] = image_HW3
    return np.concatenate([line, image])


def predictions_sheet(source: Source, detections: Sequence[dict[str, Any]], num_images: int = 8) -> np.ndarray:
    """A sheet of images spread over the source with what was found in them above a score of 0.3.

    `detections` are in COCO form, in each image's own pixels.
    """
    label_of = {category["id"]: label for label, category in enumerate(source.ground_truth()["categories"])}
    chosen = np.linspace(0, len(source) - 1, min(num_images, len(source))).astype(int)
    pictures = []
    for index in chosen.tolist():
        image_id = source.image_id(index)
        shown = [d for d in detections if d["image_id"] == image_id and d["score"] >= _MIN_SHOWN_SCORE]
        xywh = np.array([d["bbox"] for d in shown], np.float64).reshape(-1, 4)
        labels = [label_of[d["category_id"]] for d in shown]
        captions = [f"{source.class_names[label]} {d['score']:.2f}" for label, d in zip(labels, shown, strict=True)]
        boxes_xyxy = xywh_to_xyxy(xywh)
        # Enlarged or reduced first: lines and captions are then as thick and as large on every image.
        image, scale = fit(source[index].image)
        pictures.append(draw_boxes(image, boxes_xyxy * scale, labels, captions))
    return sheet(pictures)


def keep_picture(workdir: Path, name: str, image_HW3: np.ndarray) -> dict[str, Any]:
    """Writes pictures/<name>.jpg; what a record of metrics.jsonl says of it."""
    path = workdir / "pictures" / f"{name}.jpg"
    path.parent.mkdir(exist_ok=True)
    write_picture(path, image_HW3)
    return {"picture": str(path.relative_to(workdir)), "height_width": list(image_HW3.shape[:2])}


def write_picture(path: Path, image_HW3: np.ndarray) -> None:
    """Writes a BGR image in the format that the path's ending names; an OSError where that fails."""
    try:
        written = cv2.imwrite(str(path), image_HW3)
    except cv2.error as error:  # an ending that OpenCV does not know
        raise OSError(f"could not write the picture {path}: {error.err}") from error
    if not written:
        raise OSError(f"could not write the picture {path}")
