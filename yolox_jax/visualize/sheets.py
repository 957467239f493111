"""Arranges images on a sheet (a grid, with titles), and writes pictures to files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolox_jax import storage
from yolox_jax.augment.geometry import PAD_VALUE
from yolox_jax.boxes import xywh_to_xyxy
from yolox_jax.errors import UserError, writing
from yolox_jax.types import Source
from yolox_jax.visualize.drawing import draw_boxes

TITLE_HEIGHT = 18  # pixels
_TITLE_SCALE, _MIN_TITLE_SCALE = 0.4, 0.28  # of OpenCV's font
_MIN_SHOWN_SCORE = 0.3  # the threshold of the official demo
CELL = 320  # pixels: the side of one image on a sheet


def fit(image_HW3: np.ndarray, cell: int = CELL) -> tuple[np.ndarray, float]:
    """Resizes an image so that its longer side has `cell` pixels; returns it and the scale."""
    scale = cell / max(image_HW3.shape[:2])
    size = max(1, round(image_HW3.shape[1] * scale)), max(1, round(image_HW3.shape[0] * scale))
    return cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), scale


def sheet(images: Sequence[np.ndarray], columns: int = 4, cell: int = CELL) -> np.ndarray:
    """Arranges images of at most `cell` pixels a side in a grid on gray."""
    rows = -(-len(images) // columns)
    canvas = np.full((rows * cell, min(columns, len(images)) * cell, 3), PAD_VALUE, np.uint8)
    for place, image in enumerate(images):
        y, x = place // columns * cell, place % columns * cell
        canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas


def titled(image_HW3: np.ndarray, title: str, width: int) -> np.ndarray:
    """Pads the image with gray to `width` and puts a black title bar with white text above it.

    Text that is too long for the width is drawn smaller, down to _MIN_TITLE_SCALE, and then cut off.
    """
    line = np.zeros((TITLE_HEIGHT, width, 3), np.uint8)
    (text_width, _), _ = cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, _TITLE_SCALE, 1)
    scale = max(_MIN_TITLE_SCALE, _TITLE_SCALE * min(1, (width - 4) / max(text_width, 1)))
    cv2.putText(line, title, (2, TITLE_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    image = np.full((image_HW3.shape[0], width, 3), PAD_VALUE, np.uint8)
    image[:, : image_HW3.shape[1]] = image_HW3
    return np.concatenate([line, image])


def predictions_sheet(source: Source, detections: Sequence[dict[str, Any]], num_images: int = 8) -> np.ndarray:
    """Draws the detections of score 0.3 and above on a sheet of images spread evenly over the source.

    `detections` are in COCO's result format, in the pixels of each image.
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
        # Resized before drawing, so that lines and captions have the same size on every image.
        image, scale = fit(source[index].image)
        pictures.append(draw_boxes(image, boxes_xyxy * scale, labels, captions))
    return sheet(pictures)


def keep_picture(workdir: Path, name: str, image_HW3: np.ndarray) -> dict[str, Any]:
    """Writes pictures/<name>.jpg in a run directory; returns the fields that metrics.jsonl records for it.

    Raises:
      UserError: the picture cannot be written.
    """
    path = workdir / "pictures" / f"{name}.jpg"
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)
    write_picture(path, image_HW3)
    return {"picture": str(path.relative_to(workdir)), "height_width": list(image_HW3.shape[:2])}


def write_picture(path: Path, image_HW3: np.ndarray) -> None:
    """Writes a BGR image in the format of the path's ending.

    Raises:
      UserError: OpenCV does not know the ending, the image is too large for the format, or the file cannot be written.
    """
    storage.write_bytes(path, encode(path, image_HW3), sync=False)  # a wait for the disk at each of many


def encode(path: Path, image_HW3: np.ndarray) -> bytes:
    """Encodes a BGR image in the format of the path's ending.

    Raises:
      UserError: OpenCV does not know the ending, or the image is too large for the format.
    """
    try:
        is_encoded, encoded = cv2.imencode(path.suffix, image_HW3)
    except cv2.error as error:  # an unknown ending
        raise UserError(f"{path} cannot be written ({error.err})", "choose another ending, such as .jpg") from error
    if not is_encoded:  # larger than the format allows
        raise UserError(f"{path} cannot be written at {image_HW3.shape[1]}x{image_HW3.shape[0]} pixels", "choose .png")
    return encoded.tobytes()
