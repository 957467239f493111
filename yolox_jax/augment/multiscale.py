"""Training at changing sizes: which size at which step, and the resize on the device."""

import dataclasses

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class MultiscaleConfig:
    """A new size every so many steps; the reference's random_resize."""

    every_steps: int = 10
    range_units: int = 5  # of 32 pixels of height, to either side of the input's; the width keeps the input's aspect
    min_units: int | None = None  # where given, instead
    max_units: int | None = None
    end_step: int | None = None  # from where on all steps run at the base size

    def size_at(self, step: int, base_hw: tuple[int, int], seed: int) -> tuple[int, int]:
        """The size of step `step`, a pure function of (seed, step); the first `every_steps` run at the base size."""
        round_number = step // self.every_steps
        if round_number == 0 or (self.end_step is not None and step >= self.end_step):
            return base_hw
        units = self.units(base_hw)
        return self._size(units[np.random.default_rng((seed, round_number)).integers(len(units))], base_hw)

    def first_uses(self, first_step: int, num_steps: int, base_hw: tuple[int, int], seed: int) -> list[tuple[int, int]]:
        """The sizes of steps [first_step, num_steps), each once, in the order in which they come."""
        next_round = (first_step // self.every_steps + 1) * self.every_steps
        end_step = num_steps if self.end_step is None else self.end_step
        rounds = [first_step, *range(next_round, min(end_step, num_steps), self.every_steps)]
        if first_step < end_step < num_steps:
            rounds.append(end_step)
        found: dict[tuple[int, int], None] = {}
        for step in rounds if first_step < num_steps else []:
            found[self.size_at(step, base_hw, seed)] = None
            if len(found) == len(self.sizes(base_hw)):
                break
        return list(found)

    def sizes(self, base_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Every size that can occur: as many programs are compiled."""
        drawn = [self._size(units, base_hw) for units in self.units(base_hw)]
        return sorted({base_hw, *drawn})

    def units(self, base_hw: tuple[int, int]) -> range:
        """The heights that are drawn from, in units of 32 pixels."""
        base = base_hw[0] // 32
        first = max(1, base - self.range_units) if self.min_units is None else self.min_units
        last = base + self.range_units if self.max_units is None else self.max_units
        return range(first, last + 1)

    def _size(self, units: int, base_hw: tuple[int, int]) -> tuple[int, int]:
        height, width = base_hw
        return 32 * units, 32 * max(1, int(units * width / height))


def resize(images_BHW3: jax.Array, gt_boxes_BG4: jax.Array, size_hw: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Images and boxes at another size; torch's bilinear interpolate with align_corners=False, without antialias."""
    batch, height, width, channels = images_BHW3.shape
    if (height, width) == size_hw:
        return images_BHW3, gt_boxes_BG4
    shape = (batch, *size_hw, channels)
    images_BHW3 = jax.image.resize(images_BHW3, shape, "linear", antialias=False)
    scale_y, scale_x = size_hw[0] / height, size_hw[1] / width
    return images_BHW3, gt_boxes_BG4 * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)[None, None]
