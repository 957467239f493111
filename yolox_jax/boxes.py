"""Converts boxes between formats, and computes their overlaps.

Every name contains the format: xyxy is two corners, xywh the top left corner and the size, cxcywh the center and the
size; x comes before y, in pixels. norm_ means fractions of the image's width and height, norm_yxyx has y before x, and
voc_xyxy counts pixels from 1 with both corners inside the box. A function typed `Array` takes numpy or JAX arrays and
returns the same kind.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)


def _namespace(boxes: Any) -> Any:
    """Returns numpy for a numpy array, and jax.numpy for any other."""
    return np if isinstance(boxes, np.ndarray) else jnp


def cxcywh_to_xyxy(boxes_cxcywh: Array) -> Array:
    """Converts [..., 4] center and size to corners."""
    center, size = _namespace(boxes_cxcywh).split(boxes_cxcywh, 2, axis=-1)
    return _namespace(center).concatenate([center - size / 2, center + size / 2], axis=-1)


def xyxy_to_cxcywh(boxes_xyxy: Array) -> Array:
    """Converts [..., 4] corners to center and size."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return _namespace(low).concatenate([(low + high) / 2, high - low], axis=-1)


def xywh_to_xyxy(boxes_xywh: Array) -> Array:
    """Converts [..., 4] top left corner and size to corners."""
    low, size = boxes_xywh[..., :2], boxes_xywh[..., 2:]
    return _namespace(low).concatenate([low, low + size], axis=-1)


def xyxy_to_xywh(boxes_xyxy: Array) -> Array:
    """Converts [..., 4] corners to top left corner and size."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return _namespace(low).concatenate([low, high - low], axis=-1)


def xywh_to_cxcywh(boxes_xywh: Array) -> Array:
    """Converts [..., 4] top left corner and size to center and size."""
    low, size = boxes_xywh[..., :2], boxes_xywh[..., 2:]
    return _namespace(low).concatenate([low + size / 2, size], axis=-1)


def voc_xyxy_to_xywh(boxes_voc_xyxy: np.ndarray) -> np.ndarray:
    """Converts [..., 4] Pascal VOC corners (pixels from 1, both inside the box) to top left corner and size."""
    low, high = boxes_voc_xyxy[..., :2], boxes_voc_xyxy[..., 2:]
    return np.concatenate([low - 1, high - low + 1], axis=-1)


def norm_xyxy_to_xyxy(boxes_norm_xyxy: np.ndarray, image_hw: tuple[int, int] | np.ndarray) -> np.ndarray:
    """Converts [..., 4] fractions of the image to corners in pixels; `image_hw` is one size, or [..., 2]."""
    return boxes_norm_xyxy * np.asarray(image_hw)[..., [1, 0, 1, 0]]


def norm_yxyx_to_xyxy(boxes_norm_yxyx: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Converts [..., 4] fractions of the image, y first (TFDS), to corners in pixels."""
    height, width = image_hw
    return boxes_norm_yxyx[..., [1, 0, 3, 2]] * (width, height, width, height)


def xyxy_to_norm_yxyx(boxes_xyxy: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Converts [..., 4] corners in pixels to fractions of the image, y first (TFDS)."""
    height, width = image_hw
    return boxes_xyxy[..., [1, 0, 3, 2]] / (height, width, height, width)


def clip_xyxy(boxes_xyxy: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Clips [..., 4] corners to the image.

    The reference clips x1 and then adds the width, which moves x2 of a box that starts left of the image. COCO's boxes
    exceed the image by no more than a rounding error, so the two agree there.
    """
    height, width = image_hw
    return np.clip(boxes_xyxy, 0, (width, height, width, height))


def flip_xyxy(boxes_xyxy: np.ndarray, width: int) -> np.ndarray:
    """Mirrors [..., 4] corners left to right in an image of `width` pixels."""
    x1, y1, x2, y2 = np.moveaxis(boxes_xyxy, -1, 0)
    return np.stack([width - x2, y1, width - x1, y2], axis=-1)


def flip_vertical_xyxy(boxes_xyxy: np.ndarray, height: int) -> np.ndarray:
    """Mirrors [..., 4] corners top to bottom in an image of `height` pixels."""
    x1, y1, x2, y2 = np.moveaxis(boxes_xyxy, -1, 0)
    return np.stack([x1, height - y2, x2, height - y1], axis=-1)


def turn_xyxy(boxes_xyxy: np.ndarray, width: int) -> np.ndarray:
    """Turns [..., 4] corners by 90 degrees counterclockwise in an image of `width` pixels."""
    x1, y1, x2, y2 = np.moveaxis(boxes_xyxy, -1, 0)
    return np.stack([y1, width - x2, y2, width - x1], axis=-1)


def min_sides_xyxy(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Returns the shorter side [...] of each box [..., 4]."""
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).min(axis=-1)


def pairwise_iou(boxes_xyxy_M4: jax.Array, boxes_xyxy_N4: jax.Array) -> jax.Array:
    """Returns the IoU [M, N] of every box of one set with every box of the other; 0 if both are empty.

    Works coordinate by coordinate, so that no [M, N, 2] array is allocated.
    """
    x1_M1, y1_M1, x2_M1, y2_M1 = (boxes_xyxy_M4[:, None, i] for i in range(4))
    x1_1N, y1_1N, x2_1N, y2_1N = (boxes_xyxy_N4[None, :, i] for i in range(4))
    width_MN = jnp.minimum(x2_M1, x2_1N) - jnp.maximum(x1_M1, x1_1N)
    height_MN = jnp.minimum(y2_M1, y2_1N) - jnp.maximum(y1_M1, y1_1N)
    inter_MN = jnp.where((width_MN > 0) & (height_MN > 0), width_MN * height_MN, 0.0)
    area_M1 = (x2_M1 - x1_M1) * (y2_M1 - y1_M1)
    area_1N = (x2_1N - x1_1N) * (y2_1N - y1_1N)
    union_MN = area_M1 + area_1N - inter_MN
    return jnp.where(inter_MN > 0, inter_MN / union_MN, 0.0)


def pairwise_intersection_and_union(
    boxes_xyxy_M4: np.ndarray, boxes_xyxy_N4: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the areas [M, N] of intersection and union of every box of one set with every box of the other."""
    low_MN2 = np.maximum(boxes_xyxy_M4[:, None, :2], boxes_xyxy_N4[None, :, :2])
    high_MN2 = np.minimum(boxes_xyxy_M4[:, None, 2:], boxes_xyxy_N4[None, :, 2:])
    intersection_MN = np.prod(np.maximum(high_MN2 - low_MN2, 0), axis=2)
    area_M, area_N = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (boxes_xyxy_M4, boxes_xyxy_N4))
    return intersection_MN, area_M[:, None] + area_N[None, :] - intersection_MN
