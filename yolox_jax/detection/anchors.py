"""Anchor points of an input size, and the coding of boxes relative to them."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from yolox_jax.errors import UserError
from yolox_jax.types import Anchors

STRIDES = (8, 16, 32)


def check_size(size_hw: int | Sequence[int]) -> tuple[int, int]:
    """Returns the size as (height, width); a single number is both.

    Raises:
      UserError: it is not one or two positive multiples of 32.
    """
    sides = (size_hw,) if isinstance(size_hw, int) else tuple(size_hw)
    if len(sides) not in (1, 2) or not all(map(_is_right_side, sides)):
        raise UserError(
            f"the input size is {'x'.join(map(repr, sides))} (height x width)",
            f"give positive multiples of {STRIDES[-1]}: 640 for both sides, or (480, 640)",
        )
    return int(sides[0]), int(sides[-1])


def _is_right_side(side: object) -> bool:
    return isinstance(side, int | np.integer) and bool(side > 0) and side % STRIDES[-1] == 0


@functools.lru_cache(maxsize=64)
def _points(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    centers, strides = [], []
    for stride in STRIDES:
        y_hw, x_hw = np.mgrid[: height // stride, : width // stride]
        centers.append((np.stack([x_hw, y_hw], axis=-1).reshape(-1, 2) + 0.5) * stride)
        strides.append(np.full(len(centers[-1]), stride))
    return np.concatenate(centers).astype(np.float32), np.concatenate(strides).astype(np.float32)


def make_anchors(size_hw: Sequence[int]) -> Anchors:
    """The anchor points of an input of `size_hw` pixels.

    Raises:
      UserError: a side is not a positive multiple of 32.
    """
    height, width = check_size(size_hw)
    centers_A2, strides_A = _points(height, width)
    return Anchors(centers=jnp.asarray(centers_A2), strides=jnp.asarray(strides_A))


def decode(box_deltas: jax.Array, anchors: Anchors) -> jax.Array:
    """Decodes raw box outputs [..., A, 4] to cxcywh boxes [..., A, 4] in pixels.

    Source: the reference's YOLOXHead.decode_outputs. Its grid index is exactly our center / stride − 0.5.
    """
    lead = (1,) * (box_deltas.ndim - 2)
    strides = anchors.strides.reshape(*lead, -1, 1)
    index = anchors.centers.reshape(*lead, -1, 2) / strides - 0.5
    offset, log_size = jnp.split(box_deltas, 2, axis=-1)
    center = (offset + index) * strides
    size = jnp.exp(log_size) * strides
    return jnp.concatenate([center, size], axis=-1)


def encode(boxes_cxcywh: jax.Array, anchors: Anchors) -> jax.Array:
    """The inverse of `decode`: encodes cxcywh boxes [A, 4] in pixels as raw outputs.

    Source: the reference's get_l1_target, with its 1e-8 inside the logarithm.
    """
    strides_A1 = anchors.strides[:, None]
    offset_A2 = boxes_cxcywh[:, :2] / strides_A1 - (anchors.centers / strides_A1 - 0.5)
    # XLA joins multi-scale's resizing with the difference of corners: a side of 0 may come out as −4e-6.
    size_A2 = jnp.maximum(boxes_cxcywh[:, 2:], 0)
    log_size_A2 = jnp.log(size_A2 / strides_A1 + 1e-8)
    return jnp.concatenate([offset_A2, log_size_A2], axis=-1)
