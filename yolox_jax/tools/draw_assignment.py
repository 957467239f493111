"""A picture of which anchor points learn which box."""

from collections.abc import Sequence

import cv2
import numpy as np

from yolox_jax.detection.anchors import STRIDES
from yolox_jax.tools import draw

LEGEND = "positive anchors: dot stride 8, square stride 16, triangle stride 32; a crossed box has none"
_RADIUS = 4  # pixels of the picture
_BLACK = (0, 0, 0)


def draw_assignment(
    image_HW3: np.ndarray,
    boxes_xyxy_N4: np.ndarray,
    name_N: Sequence[str],
    center_P2: np.ndarray,
    stride_P: np.ndarray,
    box_P: np.ndarray,
) -> np.ndarray:
    """A copy of a BGR image with its N boxes, each in a colour of its own, and P positive anchors in their box's colour.

    All in pixels of the image. A box's caption has its name and its number of anchors; one without anchors is crossed
    out.
    """
    num_anchors_N = np.bincount(box_P, minlength=len(name_N))
    colours = [draw.class_colour(box) for box in range(len(name_N))]
    captions = [f"{name} {count}" for name, count in zip(name_N, num_anchors_N.tolist(), strict=True)]
    image = draw.draw_coloured(image_HW3, boxes_xyxy_N4, colours, captions)
    corners_N4 = np.rint(boxes_xyxy_N4).astype(int).tolist()
    for (x1, y1, x2, y2), count, colour in zip(corners_N4, num_anchors_N.tolist(), colours, strict=True):
        if not count:
            cv2.line(image, (x1, y1), (x2, y2), colour, 2, cv2.LINE_AA)
            cv2.line(image, (x1, y2), (x2, y1), colour, 2, cv2.LINE_AA)
    points = np.rint(center_P2).astype(int).tolist()
    for point, stride, box in zip(points, stride_P.tolist(), box_P.tolist(), strict=True):
        _draw_point(image, (point[0], point[1]), STRIDES.index(round(stride)), colours[box])
    return image


def _draw_point(image: np.ndarray, point: tuple[int, int], level: int, colour: tuple[int, int, int]) -> None:
    """In place, with a black edge: its box's colour may be that of the object."""
    x, y = point
    if level == 0:
        cv2.circle(image, point, _RADIUS, colour, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, point, _RADIUS, _BLACK, 1, cv2.LINE_AA)
        return
    reach = _RADIUS + level
    square = [(x - reach, y - reach), (x + reach, y - reach), (x + reach, y + reach), (x - reach, y + reach)]
    triangle = [(x, y - reach), (x + reach, y + reach), (x - reach, y + reach)]
    corners = np.array(square if level == 1 else triangle, np.int32)
    cv2.fillPoly(image, [corners], colour, cv2.LINE_AA)
    cv2.polylines(image, [corners], True, _BLACK, 1, cv2.LINE_AA)
