"""Parses --size, the input size that predict and export take."""

from collections.abc import Sequence

from yolox_jax.detection.anchors import check_size
from yolox_jax.errors import UserError


def parse_size(sides: Sequence[str]) -> tuple[int, int]:
    """Parses height and width, or one number for both.

    Raises:
      UserError: a side is not a number or not a multiple of 32.
    """
    try:
        size_hw = [int(side) for side in sides]
    except ValueError as error:
        raise UserError(f"--size is {','.join(sides)}", "give one number, or height,width") from error
    return check_size(size_hw)
