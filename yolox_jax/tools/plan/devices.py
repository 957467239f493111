"""The devices that a plan is for, by name: --device=T4, A100:8, v5e:8 or v5e:2x4."""

import math

from yolox_jax.errors import UserError
from yolox_jax.models.kernels.precision import native_dtype
from yolox_jax.tools.plan.cards import CARDS, Cards, parse_count
from yolox_jax.tools.plan.chips import CHIPS, Topology, parse_topology

Devices = Topology | Cards

_ALIASES = {"v7x": "tpu7x"}


def parse_device(name: str) -> Devices:
    """Parses a kind and, after a colon, the number of its chips; without it, 1. A TPU can have a topology there.

    Raises:
      UserError: the kind is unknown, or there is no such number of it.
    """
    kind, colon, count = name.partition(":")
    kind = {known.lower(): known for known in (*CARDS, *CHIPS)}.get(_ALIASES.get(kind.lower(), kind.lower()), kind)
    if kind in CARDS:
        return Cards(kind, parse_count(name, count if colon else "1"))
    if kind not in CHIPS:
        raise UserError(
            f"--device={name} is not known",
            f"choose one of {', '.join((*CARDS, *CHIPS))}, with a number of them after a colon",
        )
    if "x" in count:
        return parse_topology(f"{kind}:{count}")
    return _slice(kind, parse_count(name, count if colon else "1"))


def _slice(generation: str, num_chips: int) -> Topology:
    """The slice of so many chips with the shortest sides, such as 2x4 or 2x2x1."""
    if num_chips & (num_chips - 1):
        raise UserError(f"there is no slice of {num_chips} chips", "give a power of two, or a topology such as 2x4")
    sides = [1] * CHIPS[generation].dimensions
    while math.prod(sides) < num_chips:
        sides[sides.index(min(sides))] *= 2
    return parse_topology(f"{generation}:{'x'.join(map(str, sorted(sides, key=lambda side: (side == 1, side))))}")


def native_dtype_of(devices: Devices) -> str:
    """The type that `dtype=auto` is on these devices."""
    if isinstance(devices, Topology):
        return native_dtype("tpu").name
    card = devices.chip
    return native_dtype("gpu", "{}.{}".format(*card.sm.compute_capability), card.device_kind).name
