"""Images and boxes moved together: pure functions at given parameters. The random draws are their callers'."""

import cv2
import numpy as np

from yolox_jax.boxes import flip_xyxy

PAD_VALUE = 114  # the reference's grey: about the mean of ImageNet, so the border carries no edge of its own


def fit_ratio(image_hw: tuple[int, int], size_hw: tuple[int, int]) -> float:
    """The largest scale at which an image of that size fits a canvas of `size_hw`."""
    return min(size_hw[0] / image_hw[0], size_hw[1] / image_hw[1])


def scaled_hw(image_hw: tuple[int, int], size_hw: tuple[int, int]) -> tuple[int, int]:
    """The rows and columns that the image has at that scale."""
    ratio = fit_ratio(image_hw, size_hw)
    # At least one pixel: the reference fails on an image so thin that its short side rounds to nothing.
    return max(1, int(image_hw[0] * ratio)), max(1, int(image_hw[1] * ratio))


def fit(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The image [h, w, 3] at the largest scale that fits; itself where it fits already."""
    height, width = scaled_hw(image.shape[:2], size_hw)
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def pad(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The image in the top left corner of a grey [H, W, 3] canvas; itself where it fills it."""
    height, width = image.shape[:2]
    if (height, width) == size_hw:
        return image
    canvas = np.full((*size_hw, 3), PAD_VALUE, np.uint8)
    canvas[:height, :width] = image
    return canvas


def letterbox(image: np.ndarray, size_hw: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The image at the largest scale that fits, padded; and that scale. Exactly the reference's `preproc`.

    Pixels of the image times the scale are pixels of the canvas.
    """
    return pad(fit(image, size_hw), size_hw), fit_ratio(image.shape[:2], size_hw)


def flip_horizontal(image: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both mirrored left to right, as new arrays. Boxes [n, 4] are in pixels of the image [h, w, 3]."""
    return cv2.flip(image, 1), flip_xyxy(boxes_xyxy, image.shape[1])
