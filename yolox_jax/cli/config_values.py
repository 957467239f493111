"""Checks that hold for every field of a config: numbers are finite and not too long, and arguments name a field."""

import math
import re
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from yolox_jax.errors import UserError

_FIELD = re.compile(r"--?(no)?config\.\w+(\.\w+|\[\d+\])*(=.*)?", re.DOTALL)
_MOST = 10**18  # more may not fit 64 bits


def check_names(arguments: Sequence[str]) -> None:
    """Checks the form of the fields that a command line sets, such as --config.data.root=…

    Raises:
      UserError: one has another form.
    """
    for argument in arguments:
        if re.match("--?(no)?config[.]", argument) and not _FIELD.fullmatch(argument):
            raise UserError(f"{argument[:100]} names no field", "set config fields by --config.name=value")


def check_numbers(section: ConfigDict, name: str = "config") -> None:
    """Checks all numbers of a config, also those within tuples.

    Raises:
      UserError: one is NaN, infinite or has more than 18 digits.
    """
    for field, value in section.items():
        if isinstance(value, ConfigDict):
            check_numbers(value, f"{name}.{field}")
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, int | float) and not _is_usable(each):
                shown = each if isinstance(each, float) else "a whole number of more than 18 digits"
                raise UserError(f"{name}.{field} is {shown}", "give a finite number of at most 18 digits")


def _is_usable(number: Any) -> bool:
    return math.isfinite(number) if isinstance(number, float) else abs(number) < _MOST
