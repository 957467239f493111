"""Runs on the host: draws the random parameters of every augmentation; other modules apply them."""

import dataclasses
import math

import numpy as np

from yolox_jax.augment.mixup import MixupParameters
from yolox_jax.augment.mosaic import MosaicParameters
from yolox_jax.errors import UserError


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

    def __post_init__(self) -> None:
        for field, limits in (("mosaic.scale", self.scale), ("mixup.scale", self.mixup_scale)):
            are_numbers = all(isinstance(each, int | float) for each in limits)
            if len(limits) != 2 or not are_numbers or not 0 < limits[0] <= limits[1] < math.inf:
                raise UserError(
                    f"config.{field} is {limits}",
                    "give the smallest and the largest factor, both above 0 "
                    "(and only once: a tuple that is given twice on the command line is extended)",
                )
        for field, prob in (
            ("mosaic.prob", self.mosaic_prob),
            ("mixup.prob", self.mixup_prob),
            ("flip_prob", self.flip_prob),
        ):
            if not 0 <= prob <= 1:
                raise UserError(f"config.{field} is {prob}", "give a probability, from 0 to 1")
        hue, saturation, value = self.hsv or (0.0, 0.0, 0.0)
        for field, extent in (
            ("mosaic.degrees", self.degrees),
            ("mosaic.translate", self.translate),
            ("mosaic.shear", self.shear),
            ("hsv.hue", hue),
            ("hsv.saturation", saturation),
            ("hsv.value", value),
            ("min_box_side", self.min_box_side),
        ):
            if not 0 <= extent < math.inf:
                raise UserError(f"config.{field} is {extent}", "give a finite number of 0 or more")

    def no_aug(self) -> "AugmentConfig":
        """Returns the augmentation of the no-aug epochs: flip and color only."""
        return dataclasses.replace(self, mosaic_prob=0.0, mixup_prob=0.0)


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
    """Draws the scale and flip of the second image, and where it is cropped if it is larger than the first."""
    scale = rng.uniform(*config.mixup_scale)
    flip = bool(rng.random() < 0.5)
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
