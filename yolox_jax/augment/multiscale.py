"""Multi-scale training: chooses the size of each step (on the host), and resizes a batch to it (on the device)."""

import dataclasses

import jax
import numpy as np

from yolox_jax.augment.kernels.bilinear import bilinear
from yolox_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class MultiscaleConfig:
    """Multi-scale training: a new random size every `every_steps` steps, as the reference's random_resize."""

    every_steps: int
    range_units: int  # the height varies by up to this many units of 32 pixels; the width keeps the aspect ratio
    min_units: int | None = None  # limits of the height, in units of 32 pixels; if given, they replace the range
    max_units: int | None = None
    end_step: int | None = None  # from this step on, every step has the base size
    seed: int | None = None  # of the sizes; None: that of the run

    def __post_init__(self) -> None:
        for field, value, least in (
            ("every_steps", self.every_steps, 1),
            ("range_units", self.range_units, 0),
            ("min_units", self.min_units, 1),
            ("max_units", self.max_units, 1),
            ("seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise UserError(f"config.multiscale.{field} is {value}", f"give {least} or more")
        if self.min_units is not None and self.max_units is not None:
            _check_order(self.min_units, self.max_units)

    def size_at(self, step: int, base_hw: tuple[int, int], seed: int) -> tuple[int, int]:
        """Returns a step's size, a pure function of step and seed; `seed` is that of the run.

        The first `every_steps` steps have the base size.
        """
        round_number = step // self.every_steps
        if round_number == 0 or (self.end_step is not None and step >= self.end_step):
            return base_hw
        units, own_seed = self.units(base_hw), seed if self.seed is None else self.seed
        return self._size(units[np.random.default_rng((own_seed, round_number)).integers(len(units))], base_hw)

    def first_uses(self, first_step: int, num_steps: int, base_hw: tuple[int, int], seed: int) -> list[tuple[int, int]]:
        """Returns the sizes of steps [first_step, num_steps), each once, in the order of their first use."""
        next_round = (first_step // self.every_steps + 1) * self.every_steps
        end_step = num_steps if self.end_step is None else self.end_step
        changes = [first_step, *range(next_round, min(end_step, num_steps), self.every_steps)]
        if first_step < end_step < num_steps:
            changes.append(end_step)
        found: dict[tuple[int, int], None] = {}
        for step in changes if first_step < num_steps else []:
            found[self.size_at(step, base_hw, seed)] = None
            if len(found) == len(self.sizes(base_hw)):
                break
        return list(found)

    def sizes(self, base_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Returns every possible size; one training program is compiled for each."""
        drawn = [self._size(units, base_hw) for units in self.units(base_hw)]
        return sorted({base_hw, *drawn})

    def units(self, base_hw: tuple[int, int]) -> range:
        """Returns the heights to draw from, in units of 32 pixels.

        Raises:
          UserError: there are none, because the smallest is above the largest.
        """
        base = base_hw[0] // 32
        first = max(1, base - self.range_units) if self.min_units is None else self.min_units
        last = base + self.range_units if self.max_units is None else self.max_units
        _check_order(first, last)
        return range(first, last + 1)

    def _size(self, units: int, base_hw: tuple[int, int]) -> tuple[int, int]:
        height, width = base_hw
        return 32 * units, 32 * max(1, int(units * width / height))


def _check_order(min_units: int, max_units: int) -> None:
    if min_units > max_units:
        raise UserError(
            f"config.multiscale.min_units is {min_units}, more than max_units, {max_units}",
            "give both, in units of 32 pixels, the smaller one as min_units",
        )


def resize(images_BHW3: jax.Array, gt_boxes_BG4: jax.Array, size_hw: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Resizes images and boxes as torch's bilinear interpolate does (align_corners=False), without antialiasing."""
    height, width = images_BHW3.shape[1:3]
    if (height, width) == size_hw:
        return images_BHW3, gt_boxes_BG4
    images_BHW3 = bilinear(images_BHW3, size_hw)
    scale_y, scale_x = size_hw[0] / height, size_hw[1] / width
    return images_BHW3, gt_boxes_BG4 * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)[None, None]
