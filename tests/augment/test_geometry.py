"""Letterboxing compared with the reference's pixels, and flips of images and boxes."""

import numpy as np
import pytest

from tests.material import golden
from yolox_jax.augment import geometry
from yolox_jax.boxes import min_sides_xyxy

_ARRAYS = golden("augment_letterbox")


@pytest.mark.parametrize("case", ["0", "1", "2"])
def test_letterbox_gives_the_references_pixels_and_ratio(case):
    image, ratio = geometry.letterbox(_ARRAYS[f"{case}/in_bgr"], tuple(_ARRAYS[f"{case}/size_hw"].tolist()))
    np.testing.assert_array_equal(image, _ARRAYS[f"{case}/out_bgr"])
    assert ratio == _ARRAYS[f"{case}/ratio"]


def test_letterbox_rounds_the_scaled_sides_down():
    image, _ = geometry.letterbox(np.zeros((10, 17, 3), np.uint8), (64, 64))  # 10 * 64/17 = 37.6
    assert (image[:37] == 0).all()
    assert (image[37:] == geometry.PAD_VALUE).all()


def test_letterbox_keeps_one_pixel_of_an_image_that_would_round_to_none():
    image, ratio = geometry.letterbox(np.zeros((1, 2000, 3), np.uint8), (320, 320))
    assert ratio == 0.16
    assert (image[0] == 0).all()
    assert (image[1:] == geometry.PAD_VALUE).all()


def test_a_flipped_box_frames_the_same_pixels():
    image = np.random.default_rng(0).integers(256, size=(20, 31, 3), dtype=np.uint8)
    boxes = np.array([[3, 4, 10, 12], [0, 0, 31, 20], [30, 5, 31, 6]], np.float32)
    flipped, flipped_boxes = geometry.flip_horizontal(image, boxes)
    for (x1, y1, x2, y2), (u1, v1, u2, v2) in zip(boxes.astype(int), flipped_boxes.astype(int), strict=True):
        np.testing.assert_array_equal(flipped[v1:v2, u1:u2], image[y1:y2, x1:x2][:, ::-1])


def test_flipping_no_boxes_gives_no_boxes():
    _, boxes = geometry.flip_horizontal(np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.float32))
    assert boxes.shape == (0, 4)


def test_min_sides_are_the_shorter_sides():
    boxes = np.array([[1, 1, 4, 9], [0, 0, 5, 2]], np.float32)
    np.testing.assert_array_equal(min_sides_xyxy(boxes), [3, 2])
