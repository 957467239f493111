"""The arrays that travel between the parts: one dataclass for each boundary.

Shapes: B images, H and W pixels, A anchor points of all levels, G ground-truth slots, C classes, D detection slots.
Boxes are float32 in input pixels, x before y. A mask is True where a slot holds something real.
"""

import dataclasses
from typing import Any, Protocol

import flax.struct
import jax
import numpy as np


@flax.struct.dataclass
class Batch:
    """What one training step sees."""

    images: jax.Array  # [B, H, W, 3] uint8, BGR
    gt_boxes: jax.Array  # [B, G, 4] float32, xyxy
    gt_labels: jax.Array  # [B, G] int32
    gt_mask: jax.Array  # [B, G] bool
    # The colour shift that is still to be done on the device; none where None.
    hsv_shift: jax.Array | None = None  # [B, 3] float32, OpenCV's 8-bit levels
    content_hw: jax.Array | None = None  # [B, 2] int32: the first rows and columns, which are shifted; padding is not


@flax.struct.dataclass
class Anchors:
    """The anchor points of all levels: stride 8, 16, 32, row-major inside a level."""

    centers: jax.Array  # [A, 2] float32, xy
    strides: jax.Array  # [A] float32, pixels


@flax.struct.dataclass
class Predictions:
    """The network's raw outputs: nothing decoded, no sigmoid."""

    box_deltas: jax.Array  # [B, A, 4] float32: centre offset and log size, in strides
    obj_logits: jax.Array  # [B, A] float32
    cls_logits: jax.Array  # [B, A, C] float32


@flax.struct.dataclass
class Assignment:
    """Which ground-truth box each anchor learns. `gt_index` and `iou` mean something only where `positive`."""

    positive: jax.Array  # [A] bool
    gt_index: jax.Array  # [A] int32
    iou: jax.Array  # [A] float32: IoU of the anchor's predicted box with its ground-truth box


@flax.struct.dataclass
class Detections:
    """What detection answers, best score first."""

    boxes: jax.Array  # [B, D, 4] float32, xyxy
    scores: jax.Array  # [B, D] float32
    labels: jax.Array  # [B, D] int32
    mask: jax.Array  # [B, D] bool


@dataclasses.dataclass(frozen=True)
class Example:
    """One image as a person sees it, with the boxes to learn."""

    image: np.ndarray  # [h, w, 3] uint8, BGR
    boxes_xyxy: np.ndarray  # [n, 4] float32, pixels of `image`
    labels: np.ndarray  # [n] int32, class ids in [0, C)
    image_id: int | str


class Source(Protocol):
    """A data set by random access. `source[i]` is a pure function of i and safe to call from several threads.

    An image that cannot be read is an images.ImageError, in `num_boxes` too.
    """

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def image_id(self, index: int) -> int | str:
        """The id of image `index`, without decoding it."""

    def num_boxes(self, index: int) -> int:
        """How many boxes to learn image `index` has, without decoding it."""

    def ground_truth(self) -> dict[str, Any]:
        """The split in COCO's annotation format, crowds included; category k of `categories` is label k."""
