"""Runs on the host: resizes and pads images, and flips and turns them together with their boxes."""

import cv2
import numpy as np

from yolox_jax.boxes import flip_vertical_xyxy, flip_xyxy, turn_xyxy

PAD_VALUE = 114  # the reference's gray, close to ImageNet's mean, so that the border adds no strong edge


def fit_ratio(image_hw: tuple[int, int], size_hw: tuple[int, int]) -> float:
    """Returns the largest scale at which an image fits into `size_hw`."""
    return min(size_hw[0] / image_hw[0], size_hw[1] / image_hw[1])


def scaled_hw(image_hw: tuple[int, int], size_hw: tuple[int, int]) -> tuple[int, int]:
    """Returns the rows and columns of an image after it is scaled to fit into `size_hw`."""
    ratio = fit_ratio(image_hw, size_hw)
    # At least one pixel: the reference fails on an image so thin that its short side rounds to 0.
    return max(1, int(image_hw[0] * ratio)), max(1, int(image_hw[1] * ratio))


def fit(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resizes an image [h, w, 3] to the largest scale that fits; returns the same array if it fits already."""
    height, width = scaled_hw(image.shape[:2], size_hw)
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def pad(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Pads an image [h, w, 3] on the right and bottom with gray to [H, W, 3]; returns one of that size as it is."""
    height, width = image.shape[:2]
    if (height, width) == size_hw:
        return image
    canvas = np.full((*size_hw, 3), PAD_VALUE, np.uint8)
    canvas[:height, :width] = image
    return canvas


def letterbox(image: np.ndarray, size_hw: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Fits and pads an image [h, w, 3], exactly as the reference's `preproc`.

    Returns:
      The result [H, W, 3], and the scale: pixel coordinates of the image times the scale are those of the result.
    """
    return pad(fit(image, size_hw), size_hw), fit_ratio(image.shape[:2], size_hw)


def flip_horizontal(image: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors an image [h, w, 3] and its boxes [n, 4] left to right; returns new arrays."""
    return cv2.flip(image, 1), flip_xyxy(boxes_xyxy, image.shape[1])


def flip_vertical(image: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors an image [h, w, 3] and its boxes [n, 4] top to bottom; returns new arrays."""
    return cv2.flip(image, 0), flip_vertical_xyxy(boxes_xyxy, image.shape[0])


def turn(
    image: np.ndarray, boxes_xyxy: np.ndarray, quarters: int, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Turns an image [h, w, 3] and its boxes [n, 4] counterclockwise by quarters of a circle; no pixel changes.

    Resizes the turned image only if `size_hw` is not square.
    """
    for _ in range(quarters):
        boxes_xyxy = turn_xyxy(boxes_xyxy, image.shape[1])
        image = cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)
    if quarters % 2 and size_hw[0] != size_hw[1]:
        return fit_with_boxes(image, boxes_xyxy, size_hw)
    return image, boxes_xyxy


def fit_with_boxes(
    image: np.ndarray, boxes_xyxy: np.ndarray, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Resizes an image [h, w, 3] and its boxes [n, 4] to the largest scale that fits `size_hw`."""
    return fit(image, size_hw), boxes_xyxy * fit_ratio(image.shape[:2], size_hw)
