"""Runs on the host: the reference's mosaic of four images and its affine map, with given parameters.

The reference pastes four images onto a canvas of twice the output's size and warps the canvas. Here each image is
warped directly into the output, so that pixels outside the output cost nothing.
"""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from yolox_jax.augment.geometry import PAD_VALUE
from yolox_jax.boxes import clip_xyxy


@dataclasses.dataclass(frozen=True)
class MosaicParameters:
    """The random parameters of one mosaic."""

    center_yx: tuple[int, int]  # where the four images meet, in pixels of the canvas [2H, 2W]
    matrix: np.ndarray  # [2, 3] float64: canvas pixels to output pixels, xy


def mosaic(
    images: Sequence[np.ndarray],
    boxes_xyxy: Sequence[np.ndarray],
    size_hw: tuple[int, int],
    parameters: MosaicParameters,
) -> tuple[np.ndarray, np.ndarray]:
    """Places four images around the mosaic's center and warps them into the output.

    The images are [h, w, 3] uint8, fitted to `size_hw`, in the order top left, top right, bottom left, bottom right.

    Returns:
      The output [H, W, 3], and the boxes [n, 4] of the four images in its pixels, in the order of the images. A box
      becomes the bounds of its warped corners, clipped, as in the reference's random_affine; all boxes are kept,
      however small.
    """
    (canvas_height, canvas_width), (center_y, center_x) = (2 * size_hw[0], 2 * size_hw[1]), parameters.center_yx
    output = np.full((*size_hw, 4), PAD_VALUE, np.uint8)
    boxes_on_canvas = []
    for quadrant, (image, boxes) in enumerate(zip(images, boxes_xyxy, strict=True)):
        is_bottom, is_right = divmod(quadrant, 2)
        x = center_x - (0 if is_right else image.shape[1])
        y = center_y - (0 if is_bottom else image.shape[0])
        on_canvas = image[max(-y, 0) : max(canvas_height - y, 0), max(-x, 0) : max(canvas_width - x, 0)]
        _warp_into(output, on_canvas, parameters.matrix, (max(x, 0), max(y, 0)))
        shifted = boxes.astype(np.float64) + (x, y, x, y)
        boxes_on_canvas.append(clip_xyxy(shifted, (canvas_height, canvas_width)))
    boxes_in_output = _warp_boxes(np.concatenate(boxes_on_canvas), parameters.matrix)
    return cv2.cvtColor(output, cv2.COLOR_BGRA2BGR), clip_xyxy(boxes_in_output, size_hw)


def _warp_into(output: np.ndarray, image: np.ndarray, matrix: np.ndarray, corner_xy: tuple[int, int]) -> None:
    """Warps an image, whose top left pixel lies at `corner_xy` of the canvas, into the part of the output it covers.

    The output has a fourth channel, and the image gets one here: four bytes are gathered faster than three, and adding
    the channel reads the image into the cache sequentially, unlike the warp (benchmarks/NOTES.md).
    """
    if not image.size:
        return
    (x, y), (height, width), (output_height, output_width) = corner_xy, image.shape[:2], output.shape[:2]
    (xx, xy, x0), (yx, yy, y0) = matrix.tolist()
    corners = [(u, v) for u in (x - 0.5, x + width - 0.5) for v in (y - 0.5, y + height - 0.5)]
    reached_x, reached_y = [xx * u + xy * v + x0 for u, v in corners], [yx * u + yy * v + y0 for u, v in corners]
    x1, x2 = max(math.floor(min(reached_x)), 0), min(math.ceil(max(reached_x)) + 1, output_width)
    y1, y2 = max(math.floor(min(reached_y)), 0), min(math.ceil(max(reached_y)) + 1, output_height)
    if x1 >= x2 or y1 >= y2:
        return
    moved = np.array([[xx, xy, xx * x + xy * y + x0 - x1], [yx, yy, yx * x + yy * y + y0 - y1]])
    four_channels = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    part = output[y1:y2, x1:x2]
    cv2.warpAffine(four_channels, moved, (x2 - x1, y2 - y1), dst=part, borderMode=cv2.BORDER_TRANSPARENT)


def _warp_boxes(boxes_xyxy: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns the bounds [n, 4] of each box's warped corners."""
    corners_n42 = boxes_xyxy[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2) @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([corners_n42.min(axis=1), corners_n42.max(axis=1)], axis=1)
