"""Checks the numbers that augmentations draw from. A UserError names the field of the config."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from yolox_jax.errors import UserError


def check_probs(probs: Mapping[str, float]) -> None:
    """Checks that each field is a probability."""
    for field, prob in probs.items():
        if not 0 <= prob <= 1:
            raise UserError(f"config.{field} is {prob}", "give a probability, from 0 to 1")


def check_extents(extents: Mapping[str, float]) -> None:
    """Checks that each field is a finite number of 0 or more."""
    for field, extent in extents.items():
        if not 0 <= extent < math.inf:
            raise UserError(f"config.{field} is {extent}", "give a finite number of 0 or more")


def check_range(field: str, limits: Sequence[Any], what: str = "factor", most: float = math.inf) -> None:
    """Checks that a field is two numbers above 0, in order, and at most `most`."""
    are_numbers = all(isinstance(each, int | float) for each in limits)
    if len(limits) != 2 or not are_numbers or not 0 < limits[0] <= limits[1] < math.inf or limits[1] > most:
        bounds = "both above 0" if most == math.inf else f"both above 0 and at most {most:g}"
        raise UserError(
            f"config.{field} is {limits}",
            f"give the smallest and the largest {what}, {bounds} "
            "(and only once: a tuple that is given twice on the command line is extended)",
        )
