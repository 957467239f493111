"""Runs on the host: warps images and boxes by a matrix, affine [2, 3] or projective [3, 3], from pixels to pixels."""

import dataclasses
import math

import cv2
import numpy as np

from yolox_jax.augment import ranges
from yolox_jax.augment.geometry import PAD_VALUE
from yolox_jax.boxes import clip_xyxy
from yolox_jax.errors import UserError

_PERSPECTIVE_BELOW = 0.25  # from there on, the four moved corners may no longer be those of a convex figure


@dataclasses.dataclass(frozen=True)
class ViewConfig:
    """Random crop and perspective of a picture. configs/base.py has the values."""

    perspective: float  # largest shift of a corner of the view, in fractions of the view's sides
    crop_prob: float
    crop_scale: tuple[float, float]  # sides of the crop, in fractions of the picture's sides

    def __post_init__(self) -> None:
        ranges.check_probs({"crop.prob": self.crop_prob})
        ranges.check_range("crop.scale", self.crop_scale, "fraction of the sides", most=1)
        if not 0 <= self.perspective < _PERSPECTIVE_BELOW:
            raise UserError(f"config.perspective is {self.perspective}", f"give 0 or more, below {_PERSPECTIVE_BELOW}")

    @property
    def is_on(self) -> bool:
        return self.perspective > 0 or self.crop_prob > 0


def compose(view: np.ndarray | None, affine: np.ndarray) -> np.ndarray:
    """Returns the matrix of an affine map [2, 3] followed by a view [3, 3]: again affine if the view is."""
    return affine if view is None else as_affine(view @ np.vstack([affine, (0, 0, 1)]))


def as_affine(matrix: np.ndarray) -> np.ndarray:
    """Returns the upper two rows of a matrix [3, 3] that is affine, and any other as it is."""
    return matrix[:2] if len(matrix) == 3 and np.array_equal(matrix[2], (0, 0, 1)) else matrix


def warp_image(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Warps an image [h, w, 3] within its own size; what it does not reach is gray."""
    warp = cv2.warpAffine if len(matrix) == 2 else cv2.warpPerspective
    return warp(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_CONSTANT, borderValue=(PAD_VALUE,) * 3)


def warp_into(output: np.ndarray, image: np.ndarray, matrix: np.ndarray, corner_xy: tuple[int, int]) -> None:
    """Warps an image, whose top left pixel lies at `corner_xy` of the canvas, into the part of the output it covers.

    The output has a fourth channel, and the image gets one here: four bytes are gathered faster than three, and adding
    the channel reads the image into the cache sequentially, unlike the warp (benchmarks/NOTES.md).
    """
    if not image.size:
        return
    (x, y), (height, width), (output_height, output_width) = corner_xy, image.shape[:2], output.shape[:2]
    canvas_xyxy = (x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5)
    low_x, low_y, high_x, high_y = _reach(canvas_xyxy, matrix, (output_height, output_width))
    x1, x2 = max(math.floor(low_x), 0), min(math.ceil(high_x) + 1, output_width)
    y1, y2 = max(math.floor(low_y), 0), min(math.ceil(high_y) + 1, output_height)
    if x1 >= x2 or y1 >= y2:
        return
    four_channels = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    part, size = output[y1:y2, x1:x2], (x2 - x1, y2 - y1)
    if len(matrix) == 2:
        (xx, xy, x0), (yx, yy, y0) = matrix.tolist()
        moved = np.array([[xx, xy, xx * x + xy * y + x0 - x1], [yx, yy, yx * x + yy * y + y0 - y1]])
        cv2.warpAffine(four_channels, moved, size, dst=part, borderMode=cv2.BORDER_TRANSPARENT)
    else:
        moved = _translation(-x1, -y1) @ matrix @ _translation(x, y)
        cv2.warpPerspective(four_channels, moved, size, dst=part, borderMode=cv2.BORDER_TRANSPARENT)


def warp_boxes(boxes_xyxy: np.ndarray, matrix: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Returns the bounds [n, 4] of each box in an output of this size.

    By an affine matrix, they are the bounds of the warped corners, clipped, as in the reference's random_affine. By a
    projective one, a corner may lie behind the viewer, so they are the bounds of the part of the box that is in the
    output; a box without one has no size.
    """
    if len(matrix) == 3:
        bounds = [_visible_bounds(box, matrix, size_hw) for box in boxes_xyxy.tolist()]
        return np.array([(0.0,) * 4 if each is None else each for each in bounds]).reshape(-1, 4)
    corners_n42 = boxes_xyxy[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2) @ matrix[:, :2].T + matrix[:, 2]
    return clip_xyxy(np.concatenate([corners_n42.min(axis=1), corners_n42.max(axis=1)], axis=1), size_hw)


def _reach(
    box_xyxy: tuple[float, ...], matrix: np.ndarray, size_hw: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Returns the bounds of a warped box: not clipped by an affine matrix, clipped or empty by a projective one."""
    if len(matrix) == 3:
        return _visible_bounds(box_xyxy, matrix, size_hw) or (0.0, 0.0, -1.0, -1.0)
    (xx, xy, x0), (yx, yy, y0) = matrix.tolist()
    corners = [(u, v) for u in (box_xyxy[0], box_xyxy[2]) for v in (box_xyxy[1], box_xyxy[3])]
    reached_x, reached_y = [xx * u + xy * v + x0 for u, v in corners], [yx * u + yy * v + y0 for u, v in corners]
    return min(reached_x), min(reached_y), max(reached_x), max(reached_y)


def _visible_bounds(
    box_xyxy: tuple[float, ...], matrix: np.ndarray, size_hw: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """Returns the bounds of the part of a box that a projective matrix shows in the output; None if there is none.

    Sutherland and Hodgman's clipping, in homogeneous coordinates: the four planes leave no corner behind the viewer.
    """
    (x1, y1, x2, y2), (height, width) = box_xyxy, size_hw
    corners = np.array([(x1, y1, 1.0), (x2, y1, 1.0), (x2, y2, 1.0), (x1, y2, 1.0)]) @ matrix.T
    polygon: list[tuple[float, ...]] = [tuple(corner) for corner in corners.tolist()]
    for plane in ((1, 0, 0), (-1, 0, width), (0, 1, 0), (0, -1, height)):
        distances = [sum(a * b for a, b in zip(plane, point, strict=True)) for point in polygon]
        clipped = []
        for i, (point, distance) in enumerate(zip(polygon, distances, strict=True)):
            before, distance_before = polygon[i - 1], distances[i - 1]
            if (distance >= 0) != (distance_before >= 0):
                share = distance_before / (distance_before - distance)
                clipped.append(tuple(a + share * (b - a) for a, b in zip(before, point, strict=True)))
            if distance >= 0:
                clipped.append(point)
        polygon = clipped
    visible = [(x / w, y / w) for x, y, w in polygon if w > 0]
    if not visible:
        return None
    all_x, all_y = zip(*visible, strict=True)
    return min(all_x), min(all_y), max(all_x), max(all_y)


def _translation(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
