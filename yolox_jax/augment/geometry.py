"""Images and boxes moved together: pure functions at given parameters. The random draws are their callers'."""

import cv2
import numpy as np

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
    x1, y1, x2, y2 = boxes_xyxy.T
    width = image.shape[1]
    return cv2.flip(image, 1), np.stack([width - x2, y1, width - x1, y2], axis=1)


def clipped_xyxy(boxes_xywh: np.ndarray, width: int, height: int) -> np.ndarray:
    """[n, 4] float32: the corners of boxes [n, 4] (x and y of the top left corner, w, h), clipped to the image.

    Both corners are clipped. The reference clips x1 and then adds w, which moves x2 of a box that starts left of the
    image; such boxes overhang by a rounding error in COCO, so nothing else differs.
    """
    return np.clip(corners(boxes_xywh), 0, (width, height, width, height)).astype(np.float32)


def min_sides(boxes_xyxy: np.ndarray) -> np.ndarray:
    """[n]: the shorter side of each box [n, 4]."""
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).min(axis=1)


def corners(boxes_xywh: np.ndarray) -> np.ndarray:
    """[n, 4]: both corners of boxes [n, 4] given by their top left one, w and h."""
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)


def pairwise_overlap(one_xyxy: np.ndarray, other_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, m] the areas that boxes [n, 4] and boxes [m, 4] share, and [n, m] the areas that they cover together."""
    low = np.maximum(one_xyxy[:, None, :2], other_xyxy[None, :, :2])
    high = np.minimum(one_xyxy[:, None, 2:], other_xyxy[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    one_area, other_area = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one_xyxy, other_xyxy))
    return shared, one_area[:, None] + other_area[None, :] - shared
