"""Images and boxes moved together: pure functions at given parameters. The random draws are their callers'."""

import cv2
import numpy as np

PAD_VALUE = 114  # the reference's grey: about the mean of ImageNet, so the border carries no edge of its own


def fit_ratio(image_hw: tuple[int, int], size_hw: tuple[int, int]) -> float:
    """The largest scale at which an image of that size fits a canvas of `size_hw`."""
    return min(size_hw[0] / image_hw[0], size_hw[1] / image_hw[1])


def letterbox(image: np.ndarray, size_hw: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The image at the largest scale that fits, in the top left corner of a grey [H, W, 3] canvas; and that scale.

    Pixels of the image times the scale are pixels of the canvas. Exactly the reference's `preproc`.
    """
    height, width = image.shape[:2]
    ratio = fit_ratio((height, width), size_hw)
    # At least one pixel: the reference fails on an image so thin that its short side rounds to nothing.
    scaled_height, scaled_width = max(1, int(height * ratio)), max(1, int(width * ratio))
    canvas = np.full((*size_hw, 3), PAD_VALUE, np.uint8)
    canvas[:scaled_height, :scaled_width] = cv2.resize(
        image, (scaled_width, scaled_height), interpolation=cv2.INTER_LINEAR
    )
    return canvas, ratio


def flip_horizontal(image: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both mirrored left to right, as new arrays. Boxes [n, 4] are in pixels of the image [h, w, 3]."""
    x1, y1, x2, y2 = boxes_xyxy.T
    width = image.shape[1]
    return cv2.flip(image, 1), np.stack([width - x2, y1, width - x1, y2], axis=1)


def min_sides(boxes_xyxy: np.ndarray) -> np.ndarray:
    """[n]: the shorter side of each box [n, 4]."""
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).min(axis=1)
