"""Wrong checksums in a TIFF are found without decoding; what has none is never called damaged."""

import io

import numpy as np
import pytest
from PIL import Image

from yolox_jax.data import image_header, image_integrity

_STRIPS, _LENGTHS, _ROWS_PER_STRIP = 273, 279, 278


def _tiff(compression="tiff_adobe_deflate", **options):
    levels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "TIFF", compression=compression, tiffinfo={_ROWS_PER_STRIP: 16}, **options)
    return stream.getvalue()


@pytest.mark.parametrize("big_tiff", [False, True])
def test_a_flipped_byte_in_any_strip_is_found_and_the_strip_named(big_tiff):
    data = _tiff(big_tiff=big_tiff)
    offsets, lengths = (image_header.tiff_values(data, tag) for tag in (_STRIPS, _LENGTHS))
    assert len(offsets) == len(lengths) == 3 and image_integrity.damage_in_tiff(data) == ""
    rng = np.random.default_rng(1)
    for number, (offset, length) in enumerate(zip(offsets, lengths, strict=True), 1):
        for _ in range(30):
            flipped = bytearray(data)
            flipped[offset + int(rng.integers(length))] ^= int(rng.integers(1, 256))
            assert image_integrity.damage_in_tiff(bytes(flipped)).startswith(f"is damaged: part {number} of its pixels")


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "jpeg"])
def test_a_tiff_without_checksums_is_never_called_damaged(compression):
    data = bytearray(_tiff(compression))
    data[len(data) // 2] ^= 1
    assert image_integrity.damage_in_tiff(bytes(data)) == ""


def test_a_strip_that_ends_early_is_damaged_and_what_is_no_tiff_is_not():
    shortened = image_header.with_tiff_tag(_tiff(), _LENGTHS, 20)
    assert image_integrity.damage_in_tiff(bytes(shortened)) == "is damaged: part 1 of its pixels is not complete"
    assert image_integrity.damage_in_tiff(b"II*\0\xff\xff\xff\xff") == "is damaged: its directory cannot be read"
    assert image_integrity.damage_in_tiff(b"") == image_integrity.damage_in_tiff(b"\x89PNG") == ""
