"""The distributions of the random draws against the recipe's, by statistics over many of them."""

import math

import cv2
import numpy as np
import pytest

from yolox_jax.augment import draws
from yolox_jax.augment.draws import AugmentConfig

SIZE_HW = (320, 480)
CONFIG = AugmentConfig()
N = 20_000


def assert_uniform(values, low, high):
    """Kolmogorov and Smirnov's test: at this bound a right sample fails once in a million."""
    ordered = (np.sort(values) - low) / (high - low)
    assert ordered[0] >= 0 and ordered[-1] <= 1
    distance = np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered)).max()
    assert distance < 2.7 / math.sqrt(len(ordered))


@pytest.fixture(scope="module")
def mosaics():
    rng = np.random.default_rng(0)
    return [draws.draw_mosaic(rng, SIZE_HW, CONFIG) for _ in range(N)]


def test_the_centre_is_uniform_in_the_middle_half_of_the_canvas(mosaics):
    centers = np.array([parameters.center_yx for parameters in mosaics])
    assert centers.dtype.kind == "i"
    for axis, side in enumerate(SIZE_HW):
        assert centers[:, axis].min() == side // 2
        assert centers[:, axis].max() == side * 3 // 2 - 1
        assert_uniform(centers[:, axis] + 0.5, side / 2, side * 3 / 2)


def test_rotation_and_scale_are_uniform_and_independent_of_the_rest():
    # Without shear, for a rotation and a pair of shears can make the same matrix.
    rng, config = np.random.default_rng(3), AugmentConfig(shear=0.0)
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
    rng, config = np.random.default_rng(4), AugmentConfig(degrees=0.0, scale=(1.0, 1.0))
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


def test_mixup_scale_flip_and_place():
    rng = np.random.default_rng(1)
    drawn = [draws.draw_mixup(rng, SIZE_HW, CONFIG) for _ in range(N)]
    assert_uniform(np.array([parameters.scale for parameters in drawn]), 0.5, 1.5)
    assert abs(np.mean([parameters.flip for parameters in drawn]) - 0.5) < 5 / (2 * math.sqrt(N))
    for axis, side in enumerate(SIZE_HW):
        places = np.array([(int(side * p.scale) - side, p.offset_yx[axis]) for p in drawn])
        overhang, offset = places.T
        assert (offset[overhang <= 0] == 0).all()
        larger = overhang > 0
        assert ((0 <= offset) & (offset < overhang))[larger].all()
        # Each of 0 … overhang - 1 alike, so the middles of their equal shares are uniform.
        assert_uniform((offset[larger] + rng.random(larger.sum())) / overhang[larger], 0, 1)


def test_colour_shifts_are_whole_levels_within_bounds_and_half_of_each_channel_is_kept():
    rng = np.random.default_rng(2)
    shifts = np.array([draws.draw_hsv_shift(rng, CONFIG.hsv) for _ in range(N)])
    assert shifts.dtype == np.float32
    np.testing.assert_array_equal(shifts, np.trunc(shifts))
    assert (np.abs(shifts).max(axis=0) == [4, 29, 29]).all()
    # Half are switched off, and of the rest those below one level are cut to 0.
    np.testing.assert_allclose((shifts == 0).mean(axis=0), 0.5 + 0.5 / np.array([5, 30, 30]), atol=0.02)
    for channel, largest in enumerate((5, 30, 30)):
        moved = shifts[:, channel][shifts[:, channel] != 0]
        counts = np.bincount((moved + largest).astype(int), minlength=2 * largest)
        levels = [*range(1, largest), *range(largest + 1, 2 * largest)]
        expected = len(moved) / len(levels)
        assert np.abs(counts[levels] - expected).max() < 5.5 * math.sqrt(expected)
    assert np.abs(np.corrcoef(shifts.T) - np.eye(3)).max() < 5.5 / math.sqrt(N)


def test_the_plain_epochs_keep_flip_and_colour_alone():
    plain = CONFIG.plain()
    assert (plain.mosaic_prob, plain.mixup_prob) == (0, 0)
    assert (plain.flip_prob, plain.hsv) == (CONFIG.flip_prob, CONFIG.hsv)


@pytest.mark.parametrize("scale", [(0, 1), (2, 1), (-1, 1)])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(ValueError, match="config.mosaic.scale is"):
        AugmentConfig(scale=scale)


def test_factors_of_colour_lie_evenly_around_one():
    rng = np.random.default_rng(0)
    factors = np.stack([draws.draw_hsv_shift(rng, (0.015, 0.7, 0.4), multiplies=True) for _ in range(4000)])
    for channel, gain in enumerate((0.015, 0.7, 0.4)):
        share = (factors[:, channel] - 1) / gain
        assert share.min() >= -1.0001 and share.max() <= 1.0001
        assert abs(share.mean()) < 0.05 and abs(share.std() - 1 / np.sqrt(3)) < 0.02
