"""Augmentation on the device against OpenCV's and torch's answers."""

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


def test_hsv_draws_are_whole_levels_within_bounds_and_half_of_each_channel_is_kept():
    keys = jax.random.split(jax.random.key(0), 4000)
    gains = np.asarray(jax.vmap(lambda key: colour.draw_gains(key, colour.HsvConfig()))(keys))
    np.testing.assert_array_equal(gains, np.trunc(gains))
    assert (np.abs(gains).max(axis=0) == [4, 29, 29]).all()
    zero = (gains == 0).mean(axis=0)
    # Half are switched off, and of the rest those below one level are cut to 0.
    np.testing.assert_allclose(zero, 0.5 + 0.5 / np.array([5, 30, 30]), atol=0.03)
    np.testing.assert_allclose(gains.mean(axis=0), 0, atol=0.5)


def test_an_image_without_boxes_keeps_its_colours():
    image = _ARRAYS["hsv/0/in_bgr"]
    for has_box in (False, True):
        outs = [
            colour.random_hsv(jax.random.key(seed), image, jnp.array([has_box, False]), colour.HsvConfig())
            for seed in range(4)
        ]
        changed = [bool((np.asarray(out) != image).any()) for out in outs]
        assert any(changed) == has_box


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


def test_nanos_sizes_are_given_and_others_lie_around_the_input():
    given = multiscale.MultiscaleConfig(min_units=10, max_units=20)
    assert set(given.sizes((416, 416))) == {(32 * k, 32 * k) for k in range(10, 21)}
    assert set(multiscale.MultiscaleConfig().sizes((320, 320))) == {(32 * k, 32 * k) for k in range(5, 16)}


def test_sizes_keep_the_inputs_aspect():
    config = multiscale.MultiscaleConfig()
    assert all(height % 32 == width % 32 == 0 and width == 2 * height for height, width in config.sizes((320, 640)))
