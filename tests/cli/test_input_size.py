"""What --size may be."""

import pytest

from yolox_jax.cli.input_size import parse_size


def test_a_size_is_height_and_width_or_one_number_for_both():
    assert parse_size(["64"]) == (64, 64)
    assert parse_size(["64", "96"]) == (64, 96)
    with pytest.raises(ValueError, match="--size=64x96: give one number, or height,width"):
        parse_size(["64x96"])
    with pytest.raises(ValueError, match="multiples of 32"):
        parse_size(["64", "96", "32"])
