"""What make_golden.py does without PyTorch: it draws the inputs that the golden files hold, and compares files."""

import math

import numpy as np

from tests.golden.image_arrays import photo
from tests.golden.make_golden import largest_difference
from tests.golden.network_arrays import anchor_grid, random_batch
from tests.material import golden
from yolox_jax.detection.anchors import make_anchors


def test_the_inputs_are_those_of_the_kept_files():
    losses, mosaic = golden("losses"), golden("augment_mosaic")
    images, labels = random_batch("loss", 128, 160)
    np.testing.assert_allclose(images, losses["nol1/images_nchw"], atol=1e-3)  # builds of OpenCV blur a little apart
    np.testing.assert_array_equal(labels, losses["nol1/labels"])
    image = mosaic["image0"]
    assert np.abs(photo(*image.shape[:2], 0).astype(int) - image).max() <= 1


def test_the_anchors_are_ours():
    xs, ys, strides = anchor_grid(64, 96)
    ours = make_anchors((64, 96))
    np.testing.assert_array_equal(np.stack([xs + 0.5, ys + 0.5], 1) * strides[:, None], ours.centers)
    np.testing.assert_array_equal(strides, ours.strides)


def test_files_differ_by_their_farthest_number_and_wholly_if_a_key_or_a_shape_does():
    kept = {"a": np.array([1.0, 4.0]), "b": {"c": [1, 2]}}
    assert largest_difference(kept, kept) == 0
    assert largest_difference({**kept, "a": np.array([1.0, 3.0])}, kept) == 0.25
    assert largest_difference({**kept, "b": {"d": [1, 2]}}, kept) == math.inf
    assert largest_difference({**kept, "a": np.zeros(3)}, kept) == math.inf
