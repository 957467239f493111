"""Runs on the host: draws the random parameters of every augmentation; other modules apply them."""

import dataclasses
import enum
import math

import cv2
import numpy as np

from yolox_jax.augment import hook, ranges
from yolox_jax.augment.mixup import MixupParameters
from yolox_jax.augment.mosaic import MosaicParameters
from yolox_jax.augment.occlusion import OcclusionConfig, Paste
from yolox_jax.augment.quality import QualityConfig, QualityParameters
from yolox_jax.augment.warp import ViewConfig


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """The range of each random draw. configs/base.py has the recipe's values and their source."""

    mosaic_prob: float
    degrees: float  # rotation, to either side
    translate: float  # fraction of the output's sides, to either side
    scale: tuple[float, float]
    shear: float  # degrees, to either side
    mixup_prob: float  # among the mosaics that have boxes
    mixup_scale: tuple[float, float]
    flip_prob: float
    hsv: tuple[float, float, float] | None  # the largest shifts, in OpenCV's 8-bit levels; None turns them off
    hsv_multiplies: bool  # `hsv` holds the largest relative changes, not levels
    min_box_side: float  # input pixels; a box is learned only if both its sides are longer

    vertical_flip_prob: float
    turn_prob: float  # a turn by 90, 180 or 270 degrees
    view: ViewConfig
    occlusion: OcclusionConfig
    quality: QualityConfig
    hook: str  # "module:function", or empty

    def __post_init__(self) -> None:
        ranges.check_range("mosaic.scale", self.scale)
        ranges.check_range("mixup.scale", self.mixup_scale)
        ranges.check_probs(
            {
                "mosaic.prob": self.mosaic_prob,
                "mixup.prob": self.mixup_prob,
                "flip_prob": self.flip_prob,
                "vertical_flip_prob": self.vertical_flip_prob,
                "turn_prob": self.turn_prob,
            }
        )
        hue, saturation, value = self.hsv or (0.0, 0.0, 0.0)
        ranges.check_extents(
            {
                "mosaic.degrees": self.degrees,
                "mosaic.translate": self.translate,
                "mosaic.shear": self.shear,
                "hsv.hue": hue,
                "hsv.saturation": saturation,
                "hsv.value": value,
                "min_box_side": self.min_box_side,
            }
        )
        if self.hook:
            hook.load(self.hook)  # a wrong name is known now, not at the first sample

    def no_aug(self) -> "AugmentConfig":
        """Returns the augmentation of the no-aug epochs: flips, turns and color only."""
        return dataclasses.replace(
            self,
            mosaic_prob=0.0,
            mixup_prob=0.0,
            view=dataclasses.replace(self.view, perspective=0.0, crop_prob=0.0),
            occlusion=dataclasses.replace(self.occlusion, paste_prob=0.0, cutout_prob=0.0),
            quality=self.quality.color_only(),
            hook="",
        )


class Stream(enum.IntEnum):
    """Augmentations with their own random stream: turning one on does not change the draws of the others."""

    VIEW = 0
    PASTE = 1
    CUTOUT = 2
    QUALITY = 3
    HOOK = 4
    ORIENTATION = 5


def stream_of(rng: np.random.Generator, stream: Stream) -> np.random.Generator:
    """Returns a stream of the sample whose own stream is `rng`, from which nothing is drawn."""
    seed = rng.bit_generator.seed_seq
    assert isinstance(seed, np.random.SeedSequence)
    child = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, stream.value))
    return np.random.Generator(np.random.Philox(child))


def draw_mosaic(rng: np.random.Generator, size_hw: tuple[int, int], config: AugmentConfig) -> MosaicParameters:
    """Draws a mosaic's center, on a canvas of twice the output's size, and an affine map that rotates about (0, 0)."""
    height, width = size_hw
    center_yx = int(rng.uniform(0.5, 1.5) * height), int(rng.uniform(0.5, 1.5) * width)
    angle = math.radians(rng.uniform(-config.degrees, config.degrees))
    scale = rng.uniform(*config.scale)
    shear_x, shear_y = (math.tan(math.radians(rng.uniform(-config.shear, config.shear))) for _ in range(2))
    shift_xy = rng.uniform(-config.translate, config.translate, 2) * (width, height)
    row_x = scale * np.array([math.cos(angle), math.sin(angle)])  # counterclockwise on the screen, as OpenCV rotates
    row_y = scale * np.array([-math.sin(angle), math.cos(angle)])
    matrix = np.stack([row_x + shear_y * row_y, row_y + shear_x * row_x])
    return MosaicParameters(center_yx, np.column_stack([matrix, shift_xy]))


def draw_mixup(rng: np.random.Generator, size_hw: tuple[int, int], config: AugmentConfig) -> MixupParameters:
    """Draws the scale of the second image, its flip, if images are flipped, and its crop, if it is the larger one."""
    scale = rng.uniform(*config.mixup_scale)
    flip = bool(rng.random() < 0.5) and config.flip_prob > 0
    overhangs = [int(side * scale) - side for side in size_hw]
    offset_y, offset_x = (int(rng.integers(overhang)) if overhang > 0 else 0 for overhang in overhangs)
    return MixupParameters(scale, flip, (offset_y, offset_x))


def draw_hsv_shift(
    rng: np.random.Generator, largest: tuple[float, float, float], multiplies: bool = False
) -> np.ndarray:
    """Draws shifts of hue, saturation and value, [3] float32: whole levels, each 0 with probability 0.5.

    With `multiplies`, draws factors instead, as in the reference before June 2021.
    """
    if multiplies:
        return (1 + rng.uniform(-1, 1, 3) * largest).astype(np.float32)
    shift = rng.uniform(-1, 1, 3) * largest * rng.integers(0, 2, 3)
    return np.trunc(shift).astype(np.float32)


def draw_orientation(rng: np.random.Generator, config: AugmentConfig) -> tuple[bool, int]:
    """Draws a vertical flip, and the quarters of a turn: 1, 2 or 3 with equal probability, or 0."""
    if not config.vertical_flip_prob and not config.turn_prob:
        return False, 0
    rng = stream_of(rng, Stream.ORIENTATION)
    flip = bool(rng.random() < config.vertical_flip_prob)
    quarters = int(rng.integers(1, 4)) if rng.random() < config.turn_prob else 0
    return flip, quarters


def draw_view(rng: np.random.Generator, size_hw: tuple[int, int], config: ViewConfig) -> np.ndarray | None:
    """Draws a crop, enlarged to the whole picture, and its perspective; returns a matrix [3, 3], or None if neither."""
    if not config.is_on:
        return None
    (height, width), rng, view = size_hw, stream_of(rng, Stream.VIEW), None
    if rng.random() < config.crop_prob:
        side = rng.uniform(*config.crop_scale)
        x, y = rng.uniform(0, 1 - side, 2) * (width, height)
        view = np.array([[1 / side, 0, -x / side], [0, 1 / side, -y / side], [0, 0, 1]])
    if config.perspective:
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        seen = corners + rng.uniform(-config.perspective, config.perspective, (4, 2)) * (width, height)
        matrix = cv2.getPerspectiveTransform(seen.astype(np.float32), corners)
        view = matrix if view is None else matrix @ view
    return view


def draw_pastes(
    rng: np.random.Generator,
    picture_hw: tuple[int, int],
    image_hw: tuple[int, int],
    boxes_xyxy: np.ndarray,
    config: OcclusionConfig,
    *,
    may_flip: bool,
) -> list[Paste]:
    """Draws which boxes [n, 4] of another image are pasted, their scale, flip and place; those that fit the picture."""
    pastes = []
    for index in rng.permutation(len(boxes_xyxy))[: int(rng.integers(1, config.paste_max_boxes + 1))].tolist():
        scale, flip = rng.uniform(*config.paste_scale), bool(rng.random() < 0.5) and may_flip
        along_y, along_x = rng.random(2)
        (x1, y1), (x2, y2) = np.floor(boxes_xyxy[index, :2]).astype(int), np.ceil(boxes_xyxy[index, 2:]).astype(int)
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, image_hw[1]), min(y2, image_hw[0])
        height, width = round((y2 - y1) * scale), round((x2 - x1) * scale)
        room_y, room_x = picture_hw[0] - height, picture_hw[1] - width
        if min(height, width) >= 1 and min(room_y, room_x) >= 0:
            corner_xy = int(along_x * (room_x + 1)), int(along_y * (room_y + 1))
            pastes.append(Paste(index, (int(x1), int(y1), int(x2), int(y2)), (height, width), corner_xy, flip))
    return pastes


def draw_holes(
    rng: np.random.Generator, size_hw: tuple[int, int], config: OcclusionConfig
) -> list[tuple[int, int, int, int]]:
    """Draws the rectangles that are cut out: their centers are anywhere in the picture."""
    height, width = size_hw
    holes = []
    for _ in range(int(rng.integers(1, config.cutout_max_holes + 1))):
        half_y, half_x = rng.uniform(*config.cutout_scale, 2) * (height, width) / 2
        y, x = rng.random(2) * (height, width)
        x1, y1 = max(round(x - half_x), 0), max(round(y - half_y), 0)
        holes.append((x1, y1, min(round(x + half_x), width), min(round(y + half_y), height)))
    return holes


def draw_quality(rng: np.random.Generator, config: QualityConfig) -> QualityParameters | None:
    """Draws whether a picture becomes gray, and by how much it is blurred and compressed; None if nothing is on."""
    if not config.is_on:
        return None
    rng = stream_of(rng, Stream.QUALITY)
    gray, blur, jpeg = rng.random(3) < (config.gray_prob, config.blur_prob, config.jpeg_prob)
    sigma, quality = rng.uniform(*config.blur_sigma), round(rng.uniform(*config.jpeg_quality))
    return QualityParameters(bool(gray), sigma if blur else None, quality if jpeg else None)
