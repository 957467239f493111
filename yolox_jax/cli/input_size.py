"""--size of a network's input, as predict and export take it."""

from collections.abc import Sequence

from yolox_jax.detection.anchors import check_size


def parse_size(sides: Sequence[str]) -> tuple[int, int]:
    """Height and width of one or two numbers; a ValueError where they are none."""
    try:
        size_hw = [int(side) for side in sides]
    except ValueError as error:
        raise ValueError(f"--size={','.join(sides)}: give one number, or height,width") from error
    return check_size(size_hw * 2 if len(size_hw) == 1 else size_hw)
