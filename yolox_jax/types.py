"""The arrays and records that pass between the parts of the package, one dataclass for each boundary.

Shapes: B images, H and W pixels, A anchor points of all levels, G ground-truth boxes, C classes, D detections.
Boxes are float32 in input pixels, x before y. G and D include padding slots: a mask is True for a real entry and False
for padding.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import numpy as np

from yolox_jax.errors import short_lines


@flax.struct.dataclass
class Batch:
    """The input of one training step."""

    images: jax.Array  # [B, H, W, 3] uint8, BGR
    gt_boxes: jax.Array  # [B, G, 4] float32, xyxy
    gt_labels: jax.Array  # [B, G] int32
    gt_mask: jax.Array  # [B, G] bool
    # The color shift, applied on the device; both fields are None if there is none.
    hsv_shift: jax.Array | None = None  # [B, 3] float32, OpenCV's 8-bit levels; or factors (config.hsv.multiplies)
    content_hw: jax.Array | None = None  # [B, 2] int32: the rows and columns to shift; beyond them is padding


@flax.struct.dataclass
class Anchors:
    """The anchor points of all levels: stride 8, 16, 32, row-major inside a level."""

    centers: jax.Array  # [A, 2] float32, xy
    strides: jax.Array  # [A] float32, pixels


@flax.struct.dataclass
class Tiles:
    """Images cut into T tiles each (data/tiling.py), every one letterboxed; the first tile is the whole image."""

    images: Any  # [B, T, H, W, 3] uint8, BGR
    origins: Any  # [B, T, 2] float32, xy: the tile's top left corner, in pixels of the image
    ratios: Any  # [B, T] float32: input pixels per pixel of the image
    edges: (
        Any  # [B, T, 4] float32, xyxy in pixels of the image: where the tile cuts objects; infinite where it does not
    )
    mask: Any  # [B, T] bool: True for a tile, False for padding


@flax.struct.dataclass
class Predictions:
    """The network's raw outputs: boxes are not decoded, no sigmoid is applied."""

    box_deltas: jax.Array  # [B, A, 4] float32: center offset and log size, in strides
    obj_logits: jax.Array  # [B, A] float32
    cls_logits: jax.Array  # [B, A, C] float32


@flax.struct.dataclass
class Assignment:
    """The ground-truth box that each anchor learns. `gt_index` and `iou` are valid only where `positive` is True."""

    positive: jax.Array  # [A] bool
    gt_index: jax.Array  # [A] int32
    iou: jax.Array  # [A] float32: IoU of the anchor's predicted box with its ground-truth box


@flax.struct.dataclass
class Detections:
    """The detected boxes, best score first, padded to D slots."""

    boxes: jax.Array  # [B, D, 4] float32, xyxy
    scores: jax.Array  # [B, D] float32
    labels: jax.Array  # [B, D] int32
    mask: jax.Array  # [B, D] bool


@dataclasses.dataclass(frozen=True)
class Example:
    """One decoded image with the boxes to learn."""

    image: np.ndarray  # [h, w, 3] uint8, BGR, rotated as its EXIF orientation says
    boxes_xyxy: np.ndarray  # [n, 4] float32, pixels of `image`
    labels: np.ndarray  # [n] int32, class ids in [0, C)
    image_id: int | str


@dataclasses.dataclass(frozen=True)
class Problem:
    """One fault in a data set's files, and what was done about it."""

    kind: str  # a constant of data/sources/problems.py; the log groups by kind
    file: str
    record: str  # "annotation 17", "line 3"
    found: str
    action: str
    num_left_out: int = 0  # annotations that are not used because of it

    def __str__(self) -> str:
        return short_lines(f"{self.file}: {self.record}: {self.kind}: {self.found}; {self.action}")


@runtime_checkable
class Source(Protocol):
    """A data set with random access.

    `source[i]` is a pure function of i, and every method may be called from several threads at once. A method that
    has to read an image raises images.ImageError if the file cannot be read, and `source[i]` raises images.SizeError
    if the image has another size than its annotations state.
    """

    class_names: tuple[str, ...]

    @property
    def problems(self) -> list[Problem]:
        """The faults found in the annotations so far, in the order in which they were found."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def image_id(self, index: int) -> int | str:
        """Returns the id of an image without decoding it."""

    def num_boxes(self, index: int) -> int:
        """Returns the number of boxes to learn in an image without decoding it."""

    def labels(self, index: int) -> np.ndarray:
        """Returns the labels [n] int32 of these boxes without decoding the image."""

    def encoded(self, index: int) -> bytes | None:
        """Returns the bytes of an image's file, or None if the image has no file."""

    def ground_truth(self) -> dict[str, Any]:
        """Returns the split in COCO's annotation format, crowds included; entry k of `categories` is label k."""
