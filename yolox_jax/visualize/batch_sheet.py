"""Draws the images and ground-truth boxes of a training batch on a sheet."""

import cv2
import jax
import numpy as np

from yolox_jax.augment.colour import CUT
from yolox_jax.data.train_loader import LoadedBatch
from yolox_jax.types import Batch
from yolox_jax.visualize import sheets
from yolox_jax.visualize.drawing import draw_boxes


def first_shifted(loaded: LoadedBatch, max_images: int, hsv_multiplies: bool) -> Batch:
    """Returns the first images of a batch with the color shift applied, as the device will apply it."""
    batch = jax.tree.map(lambda x: x[:max_images], loaded.batch)
    if batch.hsv_shift is None or batch.content_hw is None:
        return batch
    rows = zip(batch.images, batch.hsv_shift, batch.content_hw, strict=True)
    images = [_shift_content(image, shift, content_hw, hsv_multiplies) for image, shift, content_hw in rows]
    return batch.replace(images=np.stack(images), hsv_shift=None, content_hw=None)


def draw_sheet(
    loaded: LoadedBatch, class_names: tuple[str, ...], hsv_multiplies: bool, max_images: int = 16
) -> np.ndarray:
    """Draws the first images of a batch, with the color shift applied, and their boxes in a grid."""
    batch = first_shifted(loaded, max_images, hsv_multiplies)
    pictures = []
    for image, boxes_xyxy, labels, mask in zip(
        batch.images, batch.gt_boxes, batch.gt_labels, batch.gt_mask, strict=True
    ):
        fitted, scale = sheets.fit(image)
        captions = [class_names[label] for label in labels[mask]]
        pictures.append(draw_boxes(fitted, boxes_xyxy[mask] * scale, labels[mask].tolist(), captions))
    return sheets.sheet(pictures)


def _shift_content(image_HW3: np.ndarray, shift_3: np.ndarray, content_hw: np.ndarray, multiplies: bool) -> np.ndarray:
    """Does what augment.colour.shift_content does, with OpenCV, so that drawing compiles no program during training."""
    content = image_HW3[: content_hw[0], : content_hw[1]]
    if not content.size:
        return image_HW3
    hsv = cv2.cvtColor(content, cv2.COLOR_BGR2HSV).astype(np.float64)
    hsv = np.floor(hsv * shift_3 + CUT) if multiplies else hsv + shift_3
    hsv[..., 0] %= 180  # OpenCV's 8-bit hue counts half degrees
    shifted = image_HW3.copy()
    shifted[: content_hw[0], : content_hw[1]] = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR)
    return shifted
