"""Runs on the host: blends two images as the reference's MosaicDetection.mixup does, with given parameters."""

import dataclasses

import cv2
import numpy as np

from yolox_jax.augment.geometry import pad
from yolox_jax.boxes import clip_xyxy, flip_xyxy


@dataclasses.dataclass(frozen=True)
class MixupParameters:
    """The random parameters of one mixup."""

    scale: float  # of the letterboxed second image
    flip: bool
    offset_yx: tuple[int, int]  # top left corner of the crop, in pixels of the scaled second image; 0 if uncropped


def mixup(
    picture: np.ndarray, image: np.ndarray, boxes_xyxy: np.ndarray, parameters: MixupParameters
) -> tuple[np.ndarray, np.ndarray]:
    """Blends a picture [H, W, 3] evenly with an image [h, w, 3] that is fitted to the same size.

    The image is padded with gray, scaled, flipped and cropped to the picture's size. If it is smaller, the rest of the
    picture is blended with black.

    Returns:
      The blend [H, W, 3], and the image's boxes [n, 4] in pixels of the blend: all of them, clipped.
    """
    height, width = picture.shape[:2]
    scaled_hw = int(height * parameters.scale), int(width * parameters.scale)
    scaled = cv2.resize(pad(image, (height, width)), scaled_hw[::-1], interpolation=cv2.INTER_LINEAR)
    if parameters.flip:
        scaled = cv2.flip(scaled, 1)
    y, x = parameters.offset_yx
    part = scaled[y : y + height, x : x + width]
    if part.shape != picture.shape:
        part = cv2.copyMakeBorder(
            part, 0, height - part.shape[0], 0, width - part.shape[1], cv2.BORDER_CONSTANT, value=(0, 0, 0)
        )
    # The reference truncates halves; subtracting a quarter before OpenCV rounds to the nearest level does the same.
    blend = cv2.addWeighted(picture, 0.5, part, 0.5, -0.25)
    return blend, _move_boxes(boxes_xyxy, scaled_hw, (height, width), parameters)


def _move_boxes(
    boxes_xyxy: np.ndarray, scaled_hw: tuple[int, int], size_hw: tuple[int, int], parameters: MixupParameters
) -> np.ndarray:
    moved_xyxy = clip_xyxy(boxes_xyxy.astype(np.float64) * parameters.scale, scaled_hw)
    if parameters.flip:
        moved_xyxy = flip_xyxy(moved_xyxy, scaled_hw[1])
    y, x = parameters.offset_yx
    return clip_xyxy(moved_xyxy - (x, y, x, y), size_hw)
