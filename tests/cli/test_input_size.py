"""--size is height and width, or one number for both."""

import pytest

from yolox_jax.cli.input_size import parse_size
from yolox_jax.errors import UserError


def test_one_number_is_both_sides_and_two_are_height_and_width():
    assert parse_size(["64"]) == (64, 64)
    assert parse_size(["64", "96"]) == (64, 96)
    with pytest.raises(UserError, match="--size is 64x96: give one number, or height,width"):
        parse_size(["64x96"])
    with pytest.raises(UserError, match="multiples of 32"):
        parse_size(["64", "96", "32"])
