"""Boxes on pictures."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

_GOLDEN_ANGLE = 0.618034  # hues this far apart round the circle stay apart however many classes there are
TEXT_HEIGHT = 14  # pixels


def class_colour(label: int) -> tuple[int, int, int]:
    """A BGR colour of a class's own."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_ANGLE) % 1, 0.9, 0.9)
    return int(255 * blue), int(255 * green), int(255 * red)


def draw_boxes(
    image_HW3: np.ndarray,
    boxes_xyxy_N4: np.ndarray,
    label_N: Sequence[int],
    caption_N: Sequence[str],
    size: int = 1,
) -> np.ndarray:
    """A copy of a BGR image with its boxes, each with a caption in its class's colour.

    `size` is how many times as thick and as large as usual lines and captions are.
    """
    return draw_coloured(image_HW3, boxes_xyxy_N4, [class_colour(label) for label in label_N], caption_N, size)


def draw_coloured(
    image_HW3: np.ndarray,
    boxes_xyxy_N4: np.ndarray,
    colour_N: Sequence[tuple[int, int, int]],
    caption_N: Sequence[str],
    size: int = 1,
) -> np.ndarray:
    """The same with a BGR colour for each box; a caption may be empty."""
    image = image_HW3.copy()
    height, scale = size * TEXT_HEIGHT, 0.4 * size
    # An untrained network's boxes can be larger than OpenCV's integers; beyond the picture it does not matter where.
    sides = np.array([*image.shape[1::-1]] * 2)
    shown_N4 = np.clip(np.nan_to_num(boxes_xyxy_N4), -sides, 2 * sides)
    for (x1, y1, x2, y2), colour, caption in zip(
        np.rint(shown_N4).astype(int).tolist(), colour_N, caption_N, strict=True
    ):
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2 * size)
        if not caption:
            continue
        (width, _), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, scale, size)
        # Inside the picture even where the box touches its top or right side.
        top, left = max(y1, height), max(min(x1, image.shape[1] - width), 0)
        cv2.rectangle(image, (left, top - height), (left + width, top), colour, cv2.FILLED)
        corner = (left, top - 4 * size)
        cv2.putText(image, caption, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), size, cv2.LINE_AA)
    return image
