"""Compares the augmentation on the device with OpenCV and torch."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import golden
from tests.recipe import multiscale_config
from yolox_jax.augment import colour, multiscale
from yolox_jax.errors import UserError

_ARRAYS = golden("augment_device")


@pytest.mark.parametrize("case", range(4))
def test_hsv_shifts_are_opencvs_within_two_levels(case):
    shifted = jax.jit(colour.shift_hsv)(
        _ARRAYS[f"hsv/{case}/in_bgr"], jnp.asarray(_ARRAYS[f"hsv/{case}/gains"], jnp.float32)
    )
    error = np.abs(shifted - _ARRAYS[f"hsv/{case}/out_bgr"].astype(np.float32))
    assert error.max() <= 2
    assert error.mean() < 0.1


def test_the_padding_keeps_its_gray():
    image = np.array(_ARRAYS["hsv/0/in_bgr"])
    image[40:], image[:, 50:] = 114, 114
    shift, content = jnp.array([3.0, 20.0, -25.0]), jnp.array([40, 50])
    shifted = np.asarray(colour.shift_content(image, shift, content))
    np.testing.assert_array_equal(shifted[:40, :50], colour.shift_hsv(image, shift)[:40, :50])
    assert (shifted[40:] == 114).all() and (shifted[:, 50:] == 114).all()


def test_a_shift_of_zero_changes_colors_only_by_opencvs_rounding():
    image = _ARRAYS["hsv/0/in_bgr"]
    there_and_back = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), cv2.COLOR_HSV2BGR)
    assert np.abs(colour.shift_hsv(image, jnp.zeros(3)) - there_and_back).max() <= 2


@pytest.mark.parametrize("size_hw", [(64, 96), (128, 160)])
def test_resizing_is_torchs_bilinear_and_scales_the_boxes(size_hw):
    image = jnp.asarray(_ARRAYS["resize/in"])[None]
    boxes = jnp.array([[[0.0, 0.0, 128.0, 96.0]]])
    resized, scaled = multiscale.resize(image, boxes, size_hw)
    np.testing.assert_allclose(resized[0], _ARRAYS[f"resize/{size_hw[0]}x{size_hw[1]}"], atol=1e-3)
    np.testing.assert_allclose(scaled[0, 0], [0, 0, size_hw[1], size_hw[0]], rtol=1e-6)


def test_sizes_change_every_ten_steps_and_depend_only_on_seed_and_step():
    config = multiscale_config()
    sizes = [config.size_at(step, (640, 640), seed=1) for step in range(2000)]
    assert sizes[:10] == [(640, 640)] * 10
    rounds = [set(sizes[i : i + 10]) for i in range(0, 2000, 10)]
    assert all(len(of_round) == 1 for of_round in rounds)
    assert set(sizes) == set(config.sizes((640, 640))) == {(32 * k, 32 * k) for k in range(15, 26)}
    assert sizes[777] == config.size_at(777, (640, 640), seed=1)
    assert sizes != [config.size_at(step, (640, 640), seed=2) for step in range(2000)]


def test_the_sizes_may_have_a_seed_of_their_own():
    of_seed_1, own = multiscale_config(), multiscale_config(seed=1)
    sizes = [of_seed_1.size_at(step, (640, 640), seed=1) for step in range(200)]
    assert [own.size_at(step, (640, 640), seed=2) for step in range(200)] == sizes


def test_from_the_end_step_on_the_size_is_the_input_size():
    sizes = [multiscale_config(end_step=995).size_at(step, (640, 640), seed=1) for step in range(1500)]
    assert sizes[:995] == [multiscale_config().size_at(step, (640, 640), seed=1) for step in range(995)]
    assert set(sizes[995:]) == {(640, 640)}


def test_the_limits_are_given_or_lie_around_the_input_size():
    given = multiscale_config(min_units=10, max_units=20)
    assert set(given.sizes((416, 416))) == {(32 * k, 32 * k) for k in range(10, 21)}
    assert set(multiscale_config().sizes((320, 320))) == {(32 * k, 32 * k) for k in range(5, 16)}


def test_sizes_keep_the_inputs_aspect():
    config = multiscale_config()
    assert all(height % 32 == width % 32 == 0 and width == 2 * height for height, width in config.sizes((320, 640)))


@pytest.mark.parametrize(("first_step", "num_steps"), [(0, 25), (0, 3000), (7, 60), (20, 21), (15, 400), (40, 40)])
@pytest.mark.parametrize("end_step", [None, 18, 20, 37, 500])
def test_first_uses_are_the_sizes_of_the_remaining_steps_each_once(first_step, num_steps, end_step):
    config = multiscale_config(end_step=end_step)
    expected = dict.fromkeys(config.size_at(step, (640, 640), seed=3) for step in range(first_step, num_steps))
    assert config.first_uses(first_step, num_steps, (640, 640), seed=3) == list(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every_steps": 0}, "every_steps is 0: give 1 or more"),
        ({"range_units": -1}, "range_units is -1: give 0 or more"),
        ({"min_units": 0}, "min_units is 0: give 1 or more"),
        ({"max_units": 0}, "max_units is 0: give 1 or more"),
        ({"min_units": 21, "max_units": 20}, "min_units is 21, more than max_units, 20"),
    ],
)
def test_impossible_sizes_are_refused_by_the_name_of_their_field(changes, message):
    with pytest.raises(UserError, match=rf"^config\.multiscale\.{message}"):
        multiscale_config(**changes)


def test_a_limit_on_the_wrong_side_of_the_input_size_is_refused():
    with pytest.raises(UserError, match="min_units is 26, more than max_units, 25"):
        multiscale_config(min_units=26).units((640, 640))


def test_hsv_factors_equal_the_lookup_tables_of_the_2021_reference_within_two_levels():
    """Its augment_hsv multiplies each level by its factor, truncates, and converts by OpenCV."""
    image = np.array(_ARRAYS["hsv/0/in_bgr"])
    for factors in ((1.01, 1.4, 0.8), (0.99, 0.35, 1.3), (1.0, 1.0, 1.0)):
        levels = np.arange(256, dtype=np.int16)
        tables = [(levels * factors[0]) % 180, *(np.clip(levels * factor, 0, 255) for factor in factors[1:])]
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv = np.stack([table.astype(np.uint8)[hsv[..., i]] for i, table in enumerate(tables)], axis=-1)
        expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR).astype(np.float32)
        error = np.abs(colour.shift_hsv(image, jnp.array(factors), multiplies=True) - expected)
        assert error.max() <= 2
        assert error.mean() < 0.1
