"""The random numbers of the augmentation, apart from the maths that uses them."""

import dataclasses
import math

import numpy as np

from yolox_jax.augment.mixup import MixupParameters
from yolox_jax.augment.mosaic import MosaicParameters


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How far each draw may go. The defaults are the reference's for tiny and larger models (yolox_base.py)."""

    mosaic_prob: float = 1.0
    degrees: float = 10.0  # rotation, to either side
    translate: float = 0.1  # of the output's sides, to either side
    scale: tuple[float, float] = (0.1, 2.0)
    shear: float = 2.0  # degrees, to either side
    mixup_prob: float = 1.0  # of the mosaics that have boxes
    mixup_scale: tuple[float, float] = (0.5, 1.5)
    flip_prob: float = 0.5
    hsv: tuple[float, float, float] | None = (5.0, 30.0, 30.0)  # the largest shifts, OpenCV's 8-bit levels; None: none
    hsv_multiplies: bool = False  # they are shares of each level instead
    min_box_side: float = 1.0  # input pixels: a box must be larger to be learnt

    def __post_init__(self) -> None:
        for field, limits in (("mosaic.scale", self.scale), ("mixup.scale", self.mixup_scale)):
            if len(limits) != 2 or not 0 < limits[0] <= limits[1]:
                raise ValueError(
                    f"config.{field} is {limits}: give the smallest and the largest factor, above 0 "
                    "(and once: a tuple that is given twice on the command line grows)"
                )
        for field, prob in (
            ("mosaic.prob", self.mosaic_prob),
            ("mixup.prob", self.mixup_prob),
            ("flip_prob", self.flip_prob),
        ):
            if not 0 <= prob <= 1:
                raise ValueError(f"config.{field} is {prob}: give a probability, from 0 to 1")

    def plain(self) -> "AugmentConfig":
        """The last epochs': flip and colour only."""
        return dataclasses.replace(self, mosaic_prob=0.0, mixup_prob=0.0)


def draw_mosaic(rng: np.random.Generator, size_hw: tuple[int, int], config: AugmentConfig) -> MosaicParameters:
    """A centre in the middle of the canvas of twice the size, and an affine map about its top left corner."""
    height, width = size_hw
    center_yx = int(rng.uniform(0.5, 1.5) * height), int(rng.uniform(0.5, 1.5) * width)
    angle = math.radians(rng.uniform(-config.degrees, config.degrees))
    scale = rng.uniform(*config.scale)
    shear_x, shear_y = (math.tan(math.radians(rng.uniform(-config.shear, config.shear))) for _ in range(2))
    shift_xy = rng.uniform(-config.translate, config.translate, 2) * (width, height)
    row_x = scale * np.array([math.cos(angle), math.sin(angle)])  # anti-clockwise on the screen, as OpenCV turns
    row_y = scale * np.array([-math.sin(angle), math.cos(angle)])
    matrix = np.stack([row_x + shear_y * row_y, row_y + shear_x * row_x])
    return MosaicParameters(center_yx, np.column_stack([matrix, shift_xy]))


def draw_mixup(rng: np.random.Generator, size_hw: tuple[int, int], config: AugmentConfig) -> MixupParameters:
    """A size for the second picture, a flip, and where the first lies on it if that is larger."""
    scale = rng.uniform(*config.mixup_scale)
    flip = bool(rng.random() < 0.5)
    overhangs = [int(side * scale) - side for side in size_hw]
    offset_y, offset_x = (int(rng.integers(overhang)) if overhang > 0 else 0 for overhang in overhangs)
    return MixupParameters(scale, flip, (offset_y, offset_x))


def draw_hsv_shift(
    rng: np.random.Generator, largest: tuple[float, float, float], multiplies: bool = False
) -> np.ndarray:
    """[3] float32: hue, saturation and value in whole levels, each channel left alone half of the time; or factors."""
    if multiplies:
        return (1 + rng.uniform(-1, 1, 3) * largest).astype(np.float32)
    shift = rng.uniform(-1, 1, 3) * largest * rng.integers(0, 2, 3)
    return np.trunc(shift).astype(np.float32)
