"""Draws boxes with captions on images."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

_GOLDEN_RATIO = 0.618034  # of the hue circle: with steps of this size hues stay apart for any number of classes
TEXT_HEIGHT = 14  # pixels


def class_colour(label: int) -> tuple[int, int, int]:
    """Returns the BGR color of a class."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_RATIO) % 1, 0.9, 0.9)
    return int(255 * blue), int(255 * green), int(255 * red)


def draw_boxes(
    image_HW3: np.ndarray,
    boxes_xyxy_N4: np.ndarray,
    label_N: Sequence[int],
    caption_N: Sequence[str],
    size: int = 1,
) -> np.ndarray:
    """Draws boxes and captions on a copy of a BGR image, each in the color of its class.

    `size` multiplies the thickness of lines and the size of captions.
    """
    return draw_coloured(image_HW3, boxes_xyxy_N4, [class_colour(label) for label in label_N], caption_N, size)


def draw_coloured(
    image_HW3: np.ndarray,
    boxes_xyxy_N4: np.ndarray,
    colour_N: Sequence[tuple[int, int, int]],
    caption_N: Sequence[str],
    size: int = 1,
) -> np.ndarray:
    """Draws boxes and captions on a copy of a BGR image, each in a given BGR color; a caption may be empty."""
    image = image_HW3.copy()
    height, scale = size * TEXT_HEIGHT, 0.4 * size
    # Boxes of an untrained network can exceed OpenCV's integers; outside the image their exact position is irrelevant.
    sides = np.array([*image.shape[1::-1]] * 2)
    shown_N4 = np.clip(np.nan_to_num(boxes_xyxy_N4), -sides, 2 * sides)
    for (x1, y1, x2, y2), colour, caption in zip(
        np.rint(shown_N4).astype(int).tolist(), colour_N, caption_N, strict=True
    ):
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2 * size)
        if not caption:
            continue
        (width, _), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, scale, size)
        # The caption stays inside the image even if the box touches the top or the right edge.
        top, left = max(y1, height), max(min(x1, image.shape[1] - width), 0)
        cv2.rectangle(image, (left, top - height), (left + width, top), colour, cv2.FILLED)
        corner = (left, top - 4 * size)
        cv2.putText(image, caption, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), size, cv2.LINE_AA)
    return image
