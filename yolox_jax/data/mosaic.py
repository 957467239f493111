"""Four images on one canvas, warped: the reference's mosaic and random affine at given parameters, in one pass.

The reference resizes four images, places them on a canvas of twice the size and warps that. Here the three maps of each
image are one matrix, and each image is warped once, straight into the output.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from yolox_jax.data.geometry import PAD_VALUE, fit_ratio


@dataclasses.dataclass(frozen=True)
class MosaicParameters:
    """One mosaic's draws."""

    center_yx: tuple[int, int]  # where the four images meet, in pixels of the canvas [2H, 2W]
    matrix: np.ndarray  # [2, 3] float64: canvas pixels to output pixels, xy


def mosaic(
    images: Sequence[np.ndarray],
    boxes_xyxy: Sequence[np.ndarray],
    size_hw: tuple[int, int],
    parameters: MosaicParameters,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The output [H, W, 3], and the boxes [n, 4] of each of the four images in its pixels, clipped to it.

    The images, [h, w, 3] uint8 of any sizes, lie top left, top right, bottom left and bottom right of the centre. Boxes
    are the bounds of the warped corners, as in the reference's random_affine; none is left out, however small.
    """
    output = np.full((*size_hw, 3), PAD_VALUE, np.uint8)
    warped_boxes = []
    for quadrant, (image, boxes) in enumerate(zip(images, boxes_xyxy, strict=True)):
        placement = _Placement.of(image.shape[:2], size_hw, parameters.center_yx, quadrant)
        _warp_into(output, placement.visible(image), _after(parameters.matrix, placement.matrix_of_visible()))
        warped_boxes.append(_warp_boxes(placement.boxes_on_canvas(boxes), parameters.matrix, size_hw))
    return output, warped_boxes


@dataclasses.dataclass(frozen=True)
class _Placement:
    """Where one image lies on the canvas of twice the output's size."""

    image_hw: tuple[int, int]
    scaled_hw: tuple[int, int]
    ratio: float
    shift_xy: tuple[int, int]  # of the scaled image's top left corner; what lies off the canvas is cut
    canvas_hw: tuple[int, int]

    @classmethod
    def of(
        cls, image_hw: tuple[int, int], size_hw: tuple[int, int], center_yx: tuple[int, int], quadrant: int
    ) -> "_Placement":
        ratio = fit_ratio(image_hw, size_hw)
        height, width = (max(1, int(side * ratio)) for side in image_hw)
        is_bottom, is_right = divmod(quadrant, 2)
        shift_x = center_yx[1] - (0 if is_right else width)
        shift_y = center_yx[0] - (0 if is_bottom else height)
        return cls(image_hw, (height, width), ratio, (shift_x, shift_y), (2 * size_hw[0], 2 * size_hw[1]))

    def _visible_slices(self) -> tuple[slice, slice]:
        """The rows and columns of the image, unscaled, that lie on the canvas."""
        slices = []
        for shift, scaled, side, canvas in zip(
            self.shift_xy[::-1], self.scaled_hw, self.image_hw, self.canvas_hw, strict=True
        ):
            start, stop = max(-shift, 0), min(canvas - shift, scaled)
            slices.append(slice(int(start * side / scaled), max(-int(-stop * side // scaled), 1)))
        return slices[0], slices[1]

    def visible(self, image: np.ndarray) -> np.ndarray:
        return image[self._visible_slices()]

    def matrix_of_visible(self) -> np.ndarray:
        """[2, 3]: pixels of `visible` to pixels of the canvas, both counted from the centre of the first."""
        matrix = np.zeros((2, 3))
        for axis in range(2):  # x, y
            scale = self.scaled_hw[1 - axis] / self.image_hw[1 - axis]
            first = self._visible_slices()[1 - axis].start
            matrix[axis, axis] = scale
            matrix[axis, 2] = scale * (first + 0.5) - 0.5 + self.shift_xy[axis]  # cv2.resize's half-pixel centres
        return matrix

    def boxes_on_canvas(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        moved = boxes_xyxy.astype(np.float64) * self.ratio + np.tile(self.shift_xy, 2)
        return np.clip(moved, 0, np.tile(self.canvas_hw[::-1], 2))


def _after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """[2, 3]: the affine map `first`, then `second`."""
    return second @ np.vstack([first, (0, 0, 1)])


def _warp_into(output: np.ndarray, image: np.ndarray, matrix: np.ndarray) -> None:
    """Draws the warped image over the output, touching only the rectangle that it can reach."""
    height, width = image.shape[:2]
    corners = np.array(
        [[-0.5, -0.5, 1], [width - 0.5, -0.5, 1], [-0.5, height - 0.5, 1], [width - 0.5, height - 0.5, 1]]
    )
    reached = corners @ matrix.T
    x1, y1 = np.clip(np.floor(reached.min(axis=0)).astype(int), 0, output.shape[1::-1])
    x2, y2 = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 1, 0, output.shape[1::-1])
    if x1 >= x2 or y1 >= y2:
        return
    moved = matrix - np.array([[0, 0, x1], [0, 0, y1]])
    part = output[y1:y2, x1:x2]
    cv2.warpAffine(image, moved, (x2 - x1, y2 - y1), dst=part, borderMode=cv2.BORDER_TRANSPARENT)


def _warp_boxes(boxes_xyxy: np.ndarray, matrix: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The bounds of the warped corners, clipped to the output."""
    corners_n4 = boxes_xyxy[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    warped = corners_n4 @ matrix[:, :2].T + matrix[:, 2]
    bounds = np.concatenate([warped.min(axis=1), warped.max(axis=1)], axis=1)
    return np.clip(bounds, 0, np.tile(size_hw[::-1], 2))
