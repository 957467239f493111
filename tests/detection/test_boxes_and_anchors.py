"""Box formats, overlaps, and the decoding of raw outputs."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import golden
from yolox_jax import boxes
from yolox_jax.detection import anchors
from yolox_jax.errors import UserError


def _random_boxes(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 100, (count, 2))
    return np.concatenate([low, low + rng.uniform(0, 50, (count, 2))], axis=1).astype(np.float32)


def test_the_conversions_are_inverses():
    boxes_xyxy = _random_boxes(0, 100)
    back = boxes.cxcywh_to_xyxy(boxes.xyxy_to_cxcywh(boxes_xyxy))
    np.testing.assert_allclose(back, boxes_xyxy, atol=1e-4)


def test_iou_equals_a_naive_loop():
    first, second = _random_boxes(1, 20), _random_boxes(2, 30)
    naive = np.zeros((20, 30))
    for i, (ax1, ay1, ax2, ay2) in enumerate(first):
        for j, (bx1, by1, bx2, by2) in enumerate(second):
            inter = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
            naive[i, j] = inter / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter)
    np.testing.assert_allclose(boxes.pairwise_iou(first, second), naive, atol=1e-5)


def test_iou_of_empty_boxes_is_zero():
    point = jnp.array([[5.0, 5.0, 5.0, 5.0]])
    np.testing.assert_array_equal(boxes.pairwise_iou(point, point), [[0.0]])


def test_decoded_boxes_are_the_references():
    arrays = golden("models")
    raw, decoded = arrays["nano/raw"], arrays["nano/decoded"]
    grid = anchors.make_anchors(arrays["images_nchw"].shape[2:])
    np.testing.assert_allclose(anchors.decode(raw[..., :4], grid), decoded[..., :4], rtol=1e-6, atol=1e-5)


def test_encode_inverts_decode():
    grid = anchors.make_anchors((64, 96))
    deltas = jnp.asarray(np.random.default_rng(0).normal(size=(len(grid.strides), 4)), jnp.float32)
    np.testing.assert_allclose(anchors.encode(anchors.decode(deltas, grid), grid), deltas, atol=1e-5)


def test_anchor_points_are_ordered_by_stride_then_row():
    grid = anchors.make_anchors((64, 32))
    np.testing.assert_array_equal(grid.strides, [8] * 32 + [16] * 8 + [32] * 2)
    np.testing.assert_array_equal(grid.centers[:5], [[4, 4], [12, 4], [20, 4], [28, 4], [4, 12]])
    np.testing.assert_array_equal(grid.centers[-2:], [[16, 16], [16, 48]])


@pytest.mark.parametrize("size_hw", [640, (640,), [640, 640], np.array([640, 640])])
def test_one_number_is_a_size_of_equal_sides(size_hw):
    assert anchors.check_size(size_hw) == (640, 640)


@pytest.mark.parametrize("size_hw", [(), ("640x640",), ("640", "640"), (640.0,), (True,), (64, 64, 64), (None, 640)])
def test_what_is_not_one_or_two_whole_numbers_is_refused(size_hw):
    with pytest.raises(UserError, match=r"multiples of 32: 640 for both sides, or \(480, 640\)"):
        anchors.check_size(size_hw)


@pytest.mark.parametrize("size_hw", [(100, 64), (64, 0), (-32, 32)])
def test_a_size_that_is_not_a_multiple_of_32_is_refused(size_hw):
    with pytest.raises(UserError, match=f"{size_hw[0]}x{size_hw[1]}.*multiples of 32"):
        anchors.make_anchors(size_hw)


def test_a_box_without_size_has_finite_targets_even_if_rounding_makes_the_size_negative():
    grid = anchors.make_anchors((32, 32))
    without_size = jnp.full((len(grid.strides), 4), 16.0).at[:, 2:].set(0.0)
    targets = anchors.encode(without_size, grid)
    assert jnp.isfinite(targets).all()
    assert (anchors.encode(without_size.at[:, 2:].set(-4e-6), grid) == targets).all()
