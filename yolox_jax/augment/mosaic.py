"""Runs on the host: the reference's mosaic of four images and its affine map, with given parameters.

The reference pastes four images onto a canvas of twice the output's size and warps the canvas. Here each image is
warped directly into the output, so that pixels outside the output cost nothing.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from yolox_jax.augment.geometry import PAD_VALUE
from yolox_jax.augment.warp import warp_boxes, warp_into
from yolox_jax.boxes import clip_xyxy


@dataclasses.dataclass(frozen=True)
class MosaicParameters:
    """The random parameters of one mosaic."""

    center_yx: tuple[int, int]  # where the four images meet, in pixels of the canvas [2H, 2W]
    matrix: np.ndarray  # float64, canvas pixels to output pixels, xy: affine [2, 3], or projective [3, 3]


def mosaic(
    images: Sequence[np.ndarray],
    boxes_xyxy: Sequence[np.ndarray],
    size_hw: tuple[int, int],
    parameters: MosaicParameters,
) -> tuple[np.ndarray, np.ndarray]:
    """Places four images around the mosaic's center and warps them into the output.

    The images are [h, w, 3] uint8, fitted to `size_hw`, in the order top left, top right, bottom left, bottom right.

    Returns:
      The output [H, W, 3], and the boxes [n, 4] of the four images in its pixels, in the order of the images. All
      boxes are kept, however small.
    """
    (canvas_height, canvas_width), (center_y, center_x) = (2 * size_hw[0], 2 * size_hw[1]), parameters.center_yx
    output = np.full((*size_hw, 4), PAD_VALUE, np.uint8)
    boxes_on_canvas = []
    for quadrant, (image, boxes) in enumerate(zip(images, boxes_xyxy, strict=True)):
        is_bottom, is_right = divmod(quadrant, 2)
        x = center_x - (0 if is_right else image.shape[1])
        y = center_y - (0 if is_bottom else image.shape[0])
        on_canvas = image[max(-y, 0) : max(canvas_height - y, 0), max(-x, 0) : max(canvas_width - x, 0)]
        warp_into(output, on_canvas, parameters.matrix, (max(x, 0), max(y, 0)))
        shifted = boxes.astype(np.float64) + (x, y, x, y)
        boxes_on_canvas.append(clip_xyxy(shifted, (canvas_height, canvas_width)))
    boxes_in_output = warp_boxes(np.concatenate(boxes_on_canvas), parameters.matrix, size_hw)
    return cv2.cvtColor(output, cv2.COLOR_BGRA2BGR), boxes_in_output
