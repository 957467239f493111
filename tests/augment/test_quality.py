"""Gray pictures stay gray on the device, and blur and JPEG are OpenCV's."""

import cv2
import numpy as np
import pytest

from tests.material import golden
from tests.recipe import augment_config
from yolox_jax.augment import draws
from yolox_jax.augment.colour import shift_hsv
from yolox_jax.augment.quality import QualityConfig, QualityParameters, degrade, without_tint

IMAGE = np.array(golden("augment_device")["hsv/0/in_bgr"])


@pytest.mark.parametrize(("shift", "multiplies"), [((3, 20, -25), False), ((1.01, 1.4, 0.8), True)])
def test_a_gray_picture_stays_gray_when_its_color_is_shifted(shift, multiplies):
    gray = degrade(IMAGE, QualityParameters(True, None, None))
    assert (gray[..., 0] == cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY)).all()
    kept = without_tint(np.array(shift, np.float32), multiplies)
    shifted = np.asarray(shift_hsv(gray, kept, multiplies))
    assert (shifted == shifted[..., :1]).all() and kept[2] == np.float32(shift[2])


def test_blur_and_jpeg_are_applied_in_this_order():
    blurred = cv2.GaussianBlur(IMAGE, (0, 0), 1.5)
    expected = cv2.imdecode(cv2.imencode(".jpg", blurred, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(degrade(IMAGE, QualityParameters(False, 1.5, 40)), expected)
    np.testing.assert_array_equal(degrade(IMAGE, QualityParameters(False, None, None)), IMAGE)


def test_each_happens_with_its_probability_within_its_range():
    config = QualityConfig(0.2, 0.5, (0.5, 2.0), 0.8, (30, 90))
    drawn = [draws.draw_quality(np.random.default_rng(seed), config) for seed in range(1000)]
    assert 150 < sum(each.gray for each in drawn) < 250
    sigmas = [each.blur_sigma for each in drawn if each.blur_sigma is not None]
    qualities = [each.jpeg_quality for each in drawn if each.jpeg_quality is not None]
    assert 430 < len(sigmas) < 570 and 0.5 <= min(sigmas) < 0.6 and 1.9 < max(sigmas) <= 2.0
    assert 740 < len(qualities) < 860 and (min(qualities), max(qualities)) == (30, 90)


def test_if_nothing_is_on_nothing_is_drawn():
    assert draws.draw_quality(np.random.default_rng(0), augment_config().quality) is None
