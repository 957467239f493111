"""Compares each conversion of boxes with one box converted by hand, for numpy and JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax import boxes

# One box of an image of 40 rows and 80 columns: 20 pixels wide, 10 high, its top left corner at (30, 8).
_IMAGE_HW = (40, 80)
_XYXY = [30.0, 8.0, 50.0, 18.0]
_XYWH = [30.0, 8.0, 20.0, 10.0]
_CXCYWH = [40.0, 13.0, 20.0, 10.0]
_NORM_YXYX = [0.2, 0.375, 0.45, 0.625]
_NORM_XYXY = [0.375, 0.2, 0.625, 0.45]
_VOC_XYXY = [31.0, 9.0, 50.0, 18.0]  # its first and last pixel, counted from 1

_CONVERSIONS = [
    (boxes.cxcywh_to_xyxy, _CXCYWH, _XYXY),
    (boxes.xyxy_to_cxcywh, _XYXY, _CXCYWH),
    (boxes.xywh_to_xyxy, _XYWH, _XYXY),
    (boxes.xyxy_to_xywh, _XYXY, _XYWH),
    (boxes.xywh_to_cxcywh, _XYWH, _CXCYWH),
]


@pytest.mark.parametrize(("convert", "given", "expected"), _CONVERSIONS)
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4)])
def test_a_conversion_keeps_the_leading_axes_and_the_kind_of_array(convert, given, expected, shape):
    one = np.broadcast_to(np.array(given, np.float32), shape)
    wanted = np.broadcast_to(np.array(expected, np.float32), shape)
    of_numpy, of_jax = convert(one), jax.jit(convert)(jnp.asarray(one))
    assert isinstance(of_numpy, np.ndarray) and of_numpy.dtype == np.float32
    np.testing.assert_array_equal(of_numpy, wanted)
    np.testing.assert_array_equal(of_jax, wanted)


def test_fractions_with_y_first_are_converted_to_pixels_and_back():
    np.testing.assert_allclose(boxes.norm_yxyx_to_xyxy(np.array([_NORM_YXYX]), _IMAGE_HW), [_XYXY])
    np.testing.assert_allclose(boxes.xyxy_to_norm_yxyx(np.array([_XYXY]), _IMAGE_HW), [_NORM_YXYX])


def test_fractions_become_pixels_of_one_image_or_of_one_image_per_box():
    one, two = boxes.norm_xyxy_to_xyxy(np.array([_NORM_XYXY] * 2), np.array([_IMAGE_HW, (80, 80)]))
    np.testing.assert_allclose(boxes.norm_xyxy_to_xyxy(np.array([_NORM_XYXY]), _IMAGE_HW), [_XYXY])
    np.testing.assert_allclose(one, _XYXY)
    np.testing.assert_allclose(two, [30, 16, 50, 36])


def test_pixels_counted_from_one_with_both_corners_inside_become_corner_and_size():
    np.testing.assert_array_equal(boxes.voc_xyxy_to_xywh(np.array([_VOC_XYXY])), [_XYWH])


def test_both_corners_are_clipped():
    overhanging = np.array([[-5.0, -6.0, 90.0, 50.0], _XYXY])
    np.testing.assert_array_equal(boxes.clip_xyxy(overhanging, _IMAGE_HW), [[0, 0, 80, 40], _XYXY])


def test_flipping_twice_gives_the_same_boxes_and_once_swaps_the_sides():
    one = np.array([_XYXY, [0.0, 0.0, 80.0, 1.0]])
    np.testing.assert_array_equal(boxes.flip_xyxy(one, 80), [[30, 8, 50, 18], [0, 0, 80, 1]])
    np.testing.assert_array_equal(boxes.flip_xyxy(one[:1], 100), [[50, 8, 70, 18]])
    np.testing.assert_array_equal(boxes.flip_xyxy(boxes.flip_xyxy(one, 100), 100), one)


def test_intersection_and_union_give_the_iou():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (20, 2))
    some = np.concatenate([low, low + rng.uniform(1, 40, (20, 2))], axis=1)
    intersection, union = boxes.pairwise_intersection_and_union(some[:8], some[8:])
    iou = boxes.pairwise_iou(jnp.asarray(some[:8], jnp.float32), jnp.asarray(some[8:], jnp.float32))
    assert intersection.shape == (8, 12) and (intersection > 0).any() and (intersection == 0).any()
    np.testing.assert_allclose(intersection / union, iou, atol=1e-6)
