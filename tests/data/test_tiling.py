"""Tiles cover every image with their overlap, at the scale that was asked for, in one of a few numbers."""

import itertools
import re

import numpy as np
import pytest

from yolox_jax.augment.geometry import letterbox
from yolox_jax.data.tiling import COUNTS, Tiling
from yolox_jax.errors import UserError

_SIZE = (64, 96)
_IMAGES = [(64, 96), (1, 500), (500, 1), (200, 300), (131, 257), (70, 97), (2000, 9000), (64, 4000)]


@pytest.mark.parametrize("slices", ["auto", "2x3", "6x6", "1x4", "96", "50"])
@pytest.mark.parametrize("image_hw", _IMAGES)
def test_tiles_cover_the_image_and_neighbors_overlap(slices, image_hw):
    tiling = Tiling(slices, 0.2)
    whole, *tiles = tiling.regions(image_hw, _SIZE)
    assert whole == (0, 0, image_hw[1], image_hw[0])
    assert tiling.count(image_hw, _SIZE) in COUNTS and whole not in tiles
    for low, high, length in ((1, 3, image_hw[0]), (0, 2, image_hw[1])):
        spans = sorted({(tile[low], tile[high]) for tile in tiles}) or [(0, length)]
        assert spans[0][0] == 0 and max(end for _, end in spans) == length
        for (start, end), (next_start, _) in itertools.pairwise(spans):
            assert end - next_start >= 0.2 * (end - start) - 2  # whole pixels
    assert len(tiles) == len({tile[1::2] for tile in tiles}) * len({tile[::2] for tile in tiles})  # a grid


def test_auto_tiles_are_the_pixels_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (150, 240, 3), np.uint8)
    tiling = Tiling("auto", 0.2)
    tiles = tiling.cut(image, _SIZE)
    np.testing.assert_array_equal(tiles.images[0], letterbox(image, _SIZE)[0])
    regions = tiling.regions(image.shape[:2], _SIZE)
    assert tiles.mask.sum() == len(regions) == 1 + 3 * 3
    for row, (x1, y1, x2, y2) in enumerate(regions[1:], 1):
        np.testing.assert_array_equal(tiles.images[row], image[y1:y2, x1:x2])
        assert tiles.ratios[row] == 1 and tiles.origins[row].tolist() == [x1, y1]
    corner = tiles.edges[1]
    assert corner[:2].tolist() == [-np.inf] * 2 and corner[2:].tolist() == [96, 64]
    assert np.isinf(tiles.edges[0]).all()  # the whole image cuts nothing


@pytest.mark.parametrize(
    ("slices", "image_hw", "num_tiles"),
    [
        ("auto", (60, 90), 0),  # smaller than a tile: enlarged as a whole
        ("auto", (80, 120), 0),  # the whole image is at 0.8 of its scale
        ("auto", (81, 121), 4),
        ("auto", (64, 200), 3),
        ("48", (60, 90), 9),
        ("96", (60, 90), 0),
        ("1x2", (20, 20), 2),
        ("6x6", (20, 20), 36),
    ],
)
def test_images_that_a_tile_shows_whole_are_not_cut(slices, image_hw, num_tiles):
    assert len(Tiling(slices, 0.2).regions(image_hw, _SIZE)) == 1 + num_tiles


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_whether_an_image_is_cut_does_not_depend_on_the_overlap(overlap):
    assert len(Tiling("auto", overlap).regions((80, 120), _SIZE)) == 1
    assert len(Tiling("auto", overlap).regions((128, 192), _SIZE)) > 4


def test_tiles_of_a_huge_image_grow_until_36_suffice():
    assert 25 <= len(Tiling("auto", 0.2).regions((9000, 13500), _SIZE)) <= 37
    assert len(Tiling("32", 0.0).regions((4000, 4000), _SIZE)) <= 37


@pytest.mark.parametrize(
    ("slices", "image_hw", "asked", "taken"),
    [("48", (320, 480), "32x48", (54, 81)), ("auto", (640, 960), "64x96", (107, 161))],  # 6x6 tiles cover it then
)
def test_the_warning_gives_the_size_of_tiles_asked_for_and_the_size_taken(slices, image_hw, asked, taken):
    tiling = Tiling(slices, 0.0)
    text = tiling.warning(image_hw, _SIZE)
    assert f"an image of {image_hw[0]}x{image_hw[1]} would need more than 36 tiles of {asked} pixels" in text
    height, width = map(int, re.search(r"gets tiles of (\d+)x(\d+),", text).groups())
    x1, y1, x2, y2 = tiling.regions(image_hw, _SIZE)[1]
    assert (height, width) == (y2 - y1, x2 - x1) == pytest.approx(taken, rel=0.02)
    assert tiling.warning(_SIZE, _SIZE) is None and Tiling("6x6", 0.2).warning((4000, 4000), _SIZE) is None


@pytest.mark.parametrize("slices", ["1x1", "7x6", "0x4", "axb", "16", "-2x3", "640.5", "2 x 2", "²x2"])
def test_slices_that_cannot_be_are_refused(slices):
    with pytest.raises(UserError, match="^slices is"):
        Tiling(slices, 0.2)


@pytest.mark.parametrize("overlap", [-0.1, 0.6, float("nan")])
def test_an_overlap_out_of_range_is_refused(overlap):
    with pytest.raises(UserError, match="^overlap is"):
        Tiling("auto", overlap)
