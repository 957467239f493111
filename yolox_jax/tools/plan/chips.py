"""What a TPU chip can do by its data sheet, and how chips are put together to a slice."""

import dataclasses
import math

MAX_CHIPS = 256


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation, with the peak figures of one chip."""

    flops_per_s: float  # of bfloat16 matrix products
    hbm_bytes: float
    hbm_bytes_per_s: float
    # What a chip can send, all its links together. The data sheets give both directions: twice this.
    ici_bytes_per_s: float
    dimensions: int  # of the torus the chips form
    examples: tuple[str, ...]  # slices that can be had


# Sources: cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, "key specifications", read in November 2026. The page of v4 gives
# no bandwidth between chips: 6 links of 50 GB/s each way, from Jouppi et al., "TPU v4" (ISCA 2023, arXiv 2304.01433).
CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1200e9, 300e9, 3, ("v4:2x2x1", "v4:2x2x2", "v4:4x4x4", "v4:4x8x8")),
    "v5e": Chip(197e12, 16e9, 819e9, 200e9, 2, ("v5e:1x1", "v5e:2x4", "v5e:8x8", "v5e:16x16")),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9, 3, ("v5p:2x2x1", "v5p:2x2x2", "v5p:4x4x4", "v5p:4x8x8")),
    "v6e": Chip(918e12, 32e9, 1638e9, 400e9, 2, ("v6e:1x1", "v6e:2x4", "v6e:8x8", "v6e:16x16")),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: so many chips of one generation along each axis of the torus."""

    generation: str  # a key of CHIPS
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.generation]

    @property
    def num_chips(self) -> int:
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"


def parse_topology(name: str) -> Topology:
    """The slice that "v5e:2x4" names.

    Raises:
      ValueError: an unknown generation, a shape of another number of axes, or too many chips.
    """
    generation, _, shape = name.partition(":")
    sides = shape.split("x")
    chip = CHIPS.get(generation)
    if chip is None or len(sides) != chip.dimensions or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"no topology named {name!r}: {known_topologies()}")
    topology = Topology(generation, tuple(map(int, sides)))
    if topology.num_chips > MAX_CHIPS:
        raise ValueError(f"{name} has {topology.num_chips} chips: at most {MAX_CHIPS} can be planned")
    return topology


def known_topologies() -> str:
    """What can be asked for, for an error message."""
    kinds = "; ".join(
        f"{generation}:{'x'.join('XYZ'[: chip.dimensions])} as {', '.join(chip.examples)}"
        for generation, chip in CHIPS.items()
    )
    return f"choose generation and chips along each axis, up to {MAX_CHIPS} in all: {kinds}"
