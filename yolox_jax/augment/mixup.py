"""A second image laid half-transparently over a picture: the reference's MosaicDetection.mixup at given parameters."""

import dataclasses

import cv2
import numpy as np

from yolox_jax.augment.geometry import pad


@dataclasses.dataclass(frozen=True)
class MixupParameters:
    """One mixup's draws."""

    scale: float  # of the letterboxed second image
    flip: bool
    offset_yx: tuple[int, int]  # of the picture on the second image, in its scaled pixels; 0 where that is smaller


def mixup(
    picture: np.ndarray, image: np.ndarray, boxes_xyxy: np.ndarray, parameters: MixupParameters
) -> tuple[np.ndarray, np.ndarray]:
    """The even blend of a picture [H, W, 3] with an image [h, w, 3] fitted to it, and the image's boxes [n, 4] in its pixels.

    The image is padded with grey, scaled, flipped and cut to the picture; beyond it the picture is mixed with black.
    Boxes are clipped; none is left out.
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
    # A quarter off before rounding to the nearest is the reference's cutting off of halves.
    blend = cv2.addWeighted(picture, 0.5, part, 0.5, -0.25)
    return blend, _move_boxes(boxes_xyxy, scaled_hw, (height, width), parameters)


def _move_boxes(
    boxes_xyxy: np.ndarray,
    scaled_hw: tuple[int, int],
    size_hw: tuple[int, int],
    parameters: MixupParameters,
) -> np.ndarray:
    corners_n22 = boxes_xyxy.astype(np.float64).reshape(-1, 2, 2) * parameters.scale
    corners_n22 = np.minimum(np.maximum(corners_n22, 0), scaled_hw[::-1])
    if parameters.flip:
        corners_n22[:, :, 0] = scaled_hw[1] - corners_n22[:, ::-1, 0]
    corners_n22 -= parameters.offset_yx[::-1]
    return np.minimum(np.maximum(corners_n22, 0), size_hw[::-1]).reshape(-1, 4)
