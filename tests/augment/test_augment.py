"""Augmentation on the device against OpenCV's and torch's answers."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import golden
from yolox_jax.augment import colour, multiscale

_ARRAYS = golden("augment_device")


@pytest.mark.parametrize("case", range(4))
def test_hsv_shifts_are_opencvs_within_two_levels(case):
    shifted = jax.jit(colour.shift_hsv)(
        _ARRAYS[f"hsv/{case}/in_bgr"], jnp.asarray(_ARRAYS[f"hsv/{case}/gains"], jnp.float32)
    )
    error = np.abs(shifted - _ARRAYS[f"hsv/{case}/out_bgr"].astype(np.float32))
    assert error.max() <= 2
    assert error.mean() < 0.1


def test_the_padding_keeps_its_grey():
    image = np.array(_ARRAYS["hsv/0/in_bgr"])
    image[40:], image[:, 50:] = 114, 114
    shift, content = jnp.array([3.0, 20.0, -25.0]), jnp.array([40, 50])
    shifted = np.asarray(colour.shift_content(image, shift, content))
    np.testing.assert_array_equal(shifted[:40, :50], colour.shift_hsv(image, shift)[:40, :50])
    assert (shifted[40:] == 114).all() and (shifted[:, 50:] == 114).all()


def test_no_shift_leaves_the_colours_within_opencvs_own_rounding():
    image = _ARRAYS["hsv/0/in_bgr"]
    there_and_back = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), cv2.COLOR_HSV2BGR)
    assert np.abs(colour.shift_hsv(image, jnp.zeros(3)) - there_and_back).max() <= 2


@pytest.mark.parametrize("size_hw", [(64, 96), (128, 160)])
def test_resizing_is_torchs_bilinear_and_takes_the_boxes_along(size_hw):
    image = jnp.asarray(_ARRAYS["resize/in"])[None]
    boxes = jnp.array([[[0.0, 0.0, 128.0, 96.0]]])
    resized, scaled = multiscale.resize(image, boxes, size_hw)
    np.testing.assert_allclose(resized[0], _ARRAYS[f"resize/{size_hw[0]}x{size_hw[1]}"], atol=1e-3)
    np.testing.assert_allclose(scaled[0, 0], [0, 0, size_hw[1], size_hw[0]], rtol=1e-6)


def test_sizes_change_every_ten_steps_and_depend_on_seed_and_step_alone():
    config = multiscale.MultiscaleConfig()
    sizes = [config.size_at(step, (640, 640), seed=1) for step in range(2000)]
    assert sizes[:10] == [(640, 640)] * 10
    rounds = [set(sizes[i : i + 10]) for i in range(0, 2000, 10)]
    assert all(len(of_round) == 1 for of_round in rounds)
    assert set(sizes) == set(config.sizes((640, 640))) == {(32 * k, 32 * k) for k in range(15, 26)}
    assert sizes[777] == config.size_at(777, (640, 640), seed=1)
    assert sizes != [config.size_at(step, (640, 640), seed=2) for step in range(2000)]


def test_from_the_end_step_on_the_size_is_the_inputs():
    sizes = [multiscale.MultiscaleConfig(end_step=995).size_at(step, (640, 640), seed=1) for step in range(1500)]
    assert sizes[:995] == [multiscale.MultiscaleConfig().size_at(step, (640, 640), seed=1) for step in range(995)]
    assert set(sizes[995:]) == {(640, 640)}


def test_nanos_sizes_are_given_and_others_lie_around_the_input():
    given = multiscale.MultiscaleConfig(min_units=10, max_units=20)
    assert set(given.sizes((416, 416))) == {(32 * k, 32 * k) for k in range(10, 21)}
    assert set(multiscale.MultiscaleConfig().sizes((320, 320))) == {(32 * k, 32 * k) for k in range(5, 16)}


def test_sizes_keep_the_inputs_aspect():
    config = multiscale.MultiscaleConfig()
    assert all(height % 32 == width % 32 == 0 and width == 2 * height for height, width in config.sizes((320, 640)))


@pytest.mark.parametrize(("first_step", "num_steps"), [(0, 25), (0, 3000), (7, 60), (20, 21), (15, 400), (40, 40)])
@pytest.mark.parametrize("end_step", [None, 18, 20, 37, 500])
def test_first_uses_are_the_sizes_of_the_steps_to_come_each_once(first_step, num_steps, end_step):
    config = multiscale.MultiscaleConfig(end_step=end_step)
    expected = dict.fromkeys(config.size_at(step, (640, 640), seed=3) for step in range(first_step, num_steps))
    assert config.first_uses(first_step, num_steps, (640, 640), seed=3) == list(expected)


def test_hsv_factors_are_the_tables_of_the_reference_of_2021_within_two_levels():
    """Its augment_hsv: each level times its factor, cut off, through OpenCV."""
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
