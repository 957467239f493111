"""Runs on the host: pastes boxes of another image into a picture and cuts holes into it, with given parameters."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from yolox_jax.augment import ranges
from yolox_jax.augment.geometry import PAD_VALUE
from yolox_jax.boxes import clip_xyxy, flip_xyxy
from yolox_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class OcclusionConfig:
    """How often and how much is pasted and cut out. configs/base.py has the values."""

    paste_prob: float
    paste_max_boxes: int
    paste_scale: tuple[float, float]  # of the pasted box, beside its own size in the input
    cutout_prob: float
    cutout_max_holes: int
    cutout_scale: tuple[float, float]  # sides of a hole, in fractions of the picture's sides
    max_hidden: float  # a box is left out if more than this fraction of it is hidden

    def __post_init__(self) -> None:
        ranges.check_probs(
            {"copy_paste.prob": self.paste_prob, "cutout.prob": self.cutout_prob, "max_hidden": self.max_hidden}
        )
        ranges.check_range("copy_paste.scale", self.paste_scale)
        ranges.check_range("cutout.scale", self.cutout_scale, "fraction of the sides", most=1)
        for field, number in (
            ("copy_paste.max_boxes", self.paste_max_boxes),
            ("cutout.max_holes", self.cutout_max_holes),
        ):
            if number < 1:
                raise UserError(f"config.{field} is {number}", "give 1 or more")


@dataclasses.dataclass(frozen=True)
class Paste:
    """One box of another image, and where it goes in the picture."""

    index: int  # of the box in the other image
    source_xyxy: tuple[int, int, int, int]  # the pixels that are copied
    size_hw: tuple[int, int]  # of the pasted pixels
    corner_xy: tuple[int, int]
    flip: bool

    @property
    def target_xyxy(self) -> tuple[int, int, int, int]:
        (x, y), (height, width) = self.corner_xy, self.size_hw
        return x, y, x + width, y + height


def paste(
    picture: np.ndarray, image: np.ndarray, boxes_xyxy: np.ndarray, pastes: Sequence[Paste]
) -> tuple[np.ndarray, np.ndarray]:
    """Pastes rectangles of an image [h, w, 3] into a copy of a picture [H, W, 3].

    Returns:
      The copy, and the pasted boxes [len(pastes), 4] of the image's `boxes_xyxy`, in pixels of the picture.
    """
    picture = picture.copy()
    pasted_xyxy = np.zeros((len(pastes), 4))
    for row, each in enumerate(pastes):
        (x1, y1, x2, y2), (height, width) = each.source_xyxy, each.size_hw
        patch = cv2.resize(image[y1:y2, x1:x2], (width, height), interpolation=cv2.INTER_LINEAR)
        box = (boxes_xyxy[each.index] - (x1, y1, x1, y1)) * np.tile((width / (x2 - x1), height / (y2 - y1)), 2)
        box = clip_xyxy(box, each.size_hw)
        if each.flip:
            patch, box = cv2.flip(patch, 1), flip_xyxy(box, width)
        left, top, right, bottom = each.target_xyxy
        picture[top:bottom, left:right] = patch
        pasted_xyxy[row] = box + (left, top, left, top)
    return picture, pasted_xyxy


def cut_out(picture: np.ndarray, holes_xyxy: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
    """Returns a copy of a picture [H, W, 3] with gray rectangles."""
    picture = picture.copy()
    for x1, y1, x2, y2 in holes_xyxy:
        picture[y1:y2, x1:x2] = PAD_VALUE
    return picture


def hidden_shares(
    boxes_xyxy: np.ndarray,
    pasted_xyxy: Sequence[tuple[int, int, int, int]],
    holes_xyxy: Sequence[tuple[int, int, int, int]],
    size_hw: tuple[int, int],
) -> np.ndarray:
    """Returns the share [n] of each box's pixels that lies under a hole or under what was pasted later.

    The last boxes are those of the pasted rectangles, in their order.
    """
    is_covered_HW = np.zeros(size_hw, np.bool_)
    for x1, y1, x2, y2 in holes_xyxy:
        is_covered_HW[y1:y2, x1:x2] = True
    num_older = len(boxes_xyxy) - len(pasted_xyxy)
    shares = np.zeros(len(boxes_xyxy))
    for row in reversed(range(num_older, len(boxes_xyxy))):
        shares[row] = _covered_share(is_covered_HW, boxes_xyxy[row])
        x1, y1, x2, y2 = pasted_xyxy[row - num_older]
        is_covered_HW[y1:y2, x1:x2] = True
    shares[:num_older] = [_covered_share(is_covered_HW, box) for box in boxes_xyxy[:num_older]]
    return shares


def _covered_share(is_covered_HW: np.ndarray, box_xyxy: np.ndarray) -> float:
    """Returns the covered share of the pixels that a box touches; 0 for a box without a pixel."""
    (x1, y1), (x2, y2) = np.floor(box_xyxy[:2]).astype(int), np.ceil(box_xyxy[2:]).astype(int)
    pixels = is_covered_HW[max(y1, 0) : y2, max(x1, 0) : x2]
    return float(pixels.mean()) if pixels.size else 0.0
