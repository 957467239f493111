"""TPU chips by their data sheets, and slices of them."""

import dataclasses
import math

from yolox_jax.errors import UserError

MAX_CHIPS = 256  # a whole pod of v5e or v6e


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak figures of one chip of a generation; of half a chip if that is a device of its own in JAX (TPU7x)."""

    flops_per_s: float  # bfloat16 matrix products
    hbm_bytes: float
    hbm_bytes_per_s: float
    # Sent over all links of a chip together. The data sheets add both directions: twice this.
    ici_bytes_per_s: float
    dimensions: int  # of the torus in which the chips are connected
    examples: tuple[str, ...]  # slices on offer
    devices: int = 1  # per chip, as JAX counts them; their figures and memory are separate


# Sources: "key specifications" of cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e and /tpu7x, read in November 2026. The
# page of v4 lacks the bandwidth between chips; 6 links of 50 GB/s each way are from Jouppi et al., "TPU v4" (arXiv
# 2304.01433).
CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1200e9, 300e9, 3, ("v4:2x2x1", "v4:2x2x2", "v4:4x4x4", "v4:4x8x8")),
    "v5e": Chip(197e12, 16e9, 819e9, 200e9, 2, ("v5e:1x1", "v5e:2x4", "v5e:8x8", "v5e:16x16")),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9, 3, ("v5p:2x2x1", "v5p:2x2x2", "v5p:4x4x4", "v5p:4x8x8")),
    "v6e": Chip(918e12, 32e9, 1638e9, 400e9, 2, ("v6e:1x1", "v6e:2x4", "v6e:8x8", "v6e:16x16")),
    "tpu7x": Chip(2307e12 / 2, 96 * 2**30, 7380e9 / 2, 600e9 / 2, 3, ("tpu7x:2x2x1", "tpu7x:2x2x2", "tpu7x:4x4x4"), 2),
}

GENERATION_OF_KIND = {  # a jax.Device's device_kind -> key of CHIPS; names as in jax/_src/pallas/mosaic/tpu_info.py
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: a number of chips of one generation along each axis of the torus."""

    generation: str  # a key of CHIPS
    shape: tuple[int, ...]
    unit = "chip"

    @property
    def chip(self) -> Chip:
        return CHIPS[self.generation]

    @property
    def num_chips(self) -> int:
        return math.prod(self.shape)

    @property
    def num_devices(self) -> int:
        return self.num_chips * self.chip.devices

    @property
    def name(self) -> str:
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"


def parse_topology(name: str) -> Topology:
    """Parses the name of a slice, such as "v5e:2x4".

    Raises:
      UserError: unknown generation, wrong number of axes, or too many chips.
    """
    generation, _, shape = name.partition(":")
    sides = shape.split("x")
    chip = CHIPS.get(generation)
    if chip is None or len(sides) != chip.dimensions or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UserError(f"there is no topology {name!r}", _known_topologies())
    topology = Topology(generation, tuple(map(int, sides)))
    if topology.num_chips > MAX_CHIPS:
        raise UserError(f"topology {name} has {topology.num_chips} chips", f"give one of at most {MAX_CHIPS}")
    return topology


def _known_topologies() -> str:
    kinds = "; ".join(
        f"{generation}:{'x'.join('XYZ'[: chip.dimensions])} such as {', '.join(chip.examples[:2])}"
        for generation, chip in CHIPS.items()
    )
    return f"give a generation and its chips along each axis, at most {MAX_CHIPS} in all: {kinds}"
