"""Compares the distributions of the random draws with the recipe's, by statistics over many draws."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from tests.recipe import augment_config
from yolox_jax.augment import draws
from yolox_jax.errors import UserError

SIZE_HW = (320, 480)
CONFIG = augment_config()
N = 20_000


def assert_uniform(values, low, high):
    """The Kolmogorov-Smirnov test, with a bound at which a correct sample fails once in a million."""
    ordered = (np.sort(values) - low) / (high - low)
    assert ordered[0] >= 0 and ordered[-1] <= 1
    distance = np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered)).max()
    assert distance < 2.7 / math.sqrt(len(ordered))


@pytest.fixture(scope="module")
def mosaics():
    rng = np.random.default_rng(0)
    return [draws.draw_mosaic(rng, SIZE_HW, CONFIG) for _ in range(N)]


def test_the_center_is_uniform_in_the_middle_half_of_the_canvas(mosaics):
    centers = np.array([parameters.center_yx for parameters in mosaics])
    assert centers.dtype.kind == "i"
    for axis, side in enumerate(SIZE_HW):
        assert centers[:, axis].min() == side // 2
        assert centers[:, axis].max() == side * 3 // 2 - 1
        assert_uniform(centers[:, axis] + 0.5, side / 2, side * 3 / 2)


def test_rotation_and_scale_are_uniform_and_independent_of_the_rest():
    # Without shear: a rotation and a pair of shears can give the same matrix.
    rng, config = np.random.default_rng(3), augment_config(shear=0.0)
    drawn = [draws.draw_mosaic(rng, SIZE_HW, config) for _ in range(N)]
    matrices = np.array([parameters.matrix for parameters in drawn])
    angle = np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    scale = np.hypot(matrices[:, 0, 0], matrices[:, 0, 1])
    assert_uniform(angle, -10, 10)
    assert_uniform(scale, 0.1, 2)
    centers = np.array([parameters.center_yx for parameters in drawn])
    correlation = np.corrcoef(np.column_stack([centers, angle, scale, matrices[:, :, 2]]).T)
    assert np.abs(correlation - np.eye(6)).max() < 5.5 / math.sqrt(N)


def test_both_shears_are_uniform_and_independent():
    rng, config = np.random.default_rng(4), augment_config(degrees=0.0, scale=(1.0, 1.0))
    matrices = np.array([draws.draw_mosaic(rng, SIZE_HW, config).matrix for _ in range(N)])
    shears = np.degrees(np.arctan([matrices[:, 1, 0], matrices[:, 0, 1]]))
    for shear in shears:
        assert_uniform(shear, -2, 2)
    assert abs(np.corrcoef(shears)[0, 1]) < 5.5 / math.sqrt(N)


def test_the_shift_is_uniform_in_a_tenth_of_each_side(mosaics):
    shifts_xy = np.array([parameters.matrix[:, 2] for parameters in mosaics])
    assert_uniform(shifts_xy[:, 0], -48, 48)
    assert_uniform(shifts_xy[:, 1], -32, 32)


def test_the_matrix_is_composed_as_the_references():
    class Largest:
        """Draws the largest of everything."""

        def uniform(self, low, high, size=None):
            return high if size is None else np.full(size, high)

    rotation = cv2.getRotationMatrix2D((0, 0), 10.0, 2.0)
    tangent = math.tan(math.radians(2.0))
    expected = np.stack([rotation[0] + tangent * rotation[1], rotation[1] + tangent * rotation[0]])
    expected[:, 2] = 48, 32
    np.testing.assert_allclose(draws.draw_mosaic(Largest(), SIZE_HW, CONFIG).matrix, expected, atol=1e-12)


def test_mixup_scale_flip_and_crop_are_uniform():
    rng = np.random.default_rng(1)
    drawn = [draws.draw_mixup(rng, SIZE_HW, CONFIG) for _ in range(N)]
    assert_uniform(np.array([parameters.scale for parameters in drawn]), 0.5, 1.5)
    assert abs(np.mean([parameters.flip for parameters in drawn]) - 0.5) < 5 / (2 * math.sqrt(N))
    straight = dataclasses.replace(CONFIG, flip_prob=0.0)  # nothing is mirrored, and all else is drawn alike
    rng = np.random.default_rng(1)
    assert [draws.draw_mixup(rng, SIZE_HW, straight) for _ in drawn[:99]] == [
        dataclasses.replace(parameters, flip=False) for parameters in drawn[:99]
    ]
    for axis, side in enumerate(SIZE_HW):
        places = np.array([(int(side * p.scale) - side, p.offset_yx[axis]) for p in drawn])
        overhang, offset = places.T
        assert (offset[overhang <= 0] == 0).all()
        larger = overhang > 0
        assert ((0 <= offset) & (offset < overhang))[larger].all()
        # 0 … overhang - 1 are equally likely, so adding a random fraction makes them uniform in 0 to 1.
        assert_uniform((offset[larger] + rng.random(larger.sum())) / overhang[larger], 0, 1)


def test_color_shifts_are_whole_levels_within_bounds_and_0_half_of_the_time():
    rng = np.random.default_rng(2)
    shifts = np.array([draws.draw_hsv_shift(rng, CONFIG.hsv) for _ in range(N)])
    assert shifts.dtype == np.float32
    np.testing.assert_array_equal(shifts, np.trunc(shifts))
    assert (np.abs(shifts).max(axis=0) == [4, 29, 29]).all()
    # Half are turned off, and of the others those below one level are truncated to 0.
    np.testing.assert_allclose((shifts == 0).mean(axis=0), 0.5 + 0.5 / np.array([5, 30, 30]), atol=0.02)
    for channel, largest in enumerate((5, 30, 30)):
        moved = shifts[:, channel][shifts[:, channel] != 0]
        counts = np.bincount((moved + largest).astype(int), minlength=2 * largest)
        levels = [*range(1, largest), *range(largest + 1, 2 * largest)]
        expected = len(moved) / len(levels)
        assert np.abs(counts[levels] - expected).max() < 5.5 * math.sqrt(expected)
    assert np.abs(np.corrcoef(shifts.T) - np.eye(3)).max() < 5.5 / math.sqrt(N)


def test_the_no_aug_epochs_keep_only_flip_and_color():
    no_aug = CONFIG.no_aug()
    assert (no_aug.mosaic_prob, no_aug.mixup_prob) == (0, 0)
    assert (no_aug.flip_prob, no_aug.hsv) == (CONFIG.flip_prob, CONFIG.hsv)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scale": (0, 1)}, "mosaic.scale"),
        ({"scale": (2, 1)}, "mosaic.scale"),
        ({"scale": (0.1, 2.0, 0.1, 2.0)}, "mosaic.scale"),
        ({"mixup_scale": (-1, 1)}, "mixup.scale"),
        ({"mosaic_prob": 1.5}, "mosaic.prob"),
        ({"mixup_prob": -0.1}, "mixup.prob"),
        ({"flip_prob": 2}, "flip_prob"),
        ({"min_box_side": -1}, "min_box_side"),
    ],
)
def test_an_impossible_number_is_refused_by_the_name_of_its_field(changes, field):
    with pytest.raises(UserError, match=rf"^config\.{field} is .*: give "):
        augment_config(**changes)


def test_color_factors_are_uniform_around_one():
    rng = np.random.default_rng(0)
    factors = np.stack([draws.draw_hsv_shift(rng, (0.015, 0.7, 0.4), multiplies=True) for _ in range(4000)])
    for channel, gain in enumerate((0.015, 0.7, 0.4)):
        share = (factors[:, channel] - 1) / gain
        assert share.min() >= -1.0001 and share.max() <= 1.0001
        assert abs(share.mean()) < 0.05 and abs(share.std() - 1 / np.sqrt(3)) < 0.02
