"""Compares projective warps of boxes with points of them, and of images with the boxes of what they show."""

import cv2
import numpy as np
import pytest

from tests.recipe import augment_config
from yolox_jax.augment import draws
from yolox_jax.augment.mosaic import MosaicParameters, mosaic
from yolox_jax.augment.warp import ViewConfig, as_affine, compose, warp_boxes, warp_image

SIZE_HW = (96, 128)
VIEW = ViewConfig(perspective=0.2, crop_prob=0.5, crop_scale=(0.4, 0.9))


def view_of(seed, config=VIEW):
    return draws.draw_view(np.random.default_rng(seed), SIZE_HW, config)


def test_a_box_in_perspective_has_the_bounds_of_its_points_in_the_output():
    (height, width), num_compared = SIZE_HW, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        low = rng.uniform(-300, 300, (20, 2))  # many are outside, some behind the viewer
        boxes = np.concatenate([low, low + rng.uniform(5, 200, (20, 2))], axis=1)
        matrix = view_of(seed)
        warped = warp_boxes(boxes, matrix, SIZE_HW)
        for (x1, y1, x2, y2), bounds in zip(boxes, warped, strict=True):
            grid = np.stack([*np.meshgrid(np.linspace(x1, x2, 161), np.linspace(y1, y2, 161)), np.ones((161, 161))], -1)
            x, y, w = (grid.reshape(-1, 3) @ matrix.T).T
            seen = w > 0
            x, y = x[seen] / w[seen], y[seen] / w[seen]
            inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
            if inside.sum() < 50:
                continue  # too few points to be exact
            num_compared += 1
            least, most = ([each(x[inside]), each(y[inside])] for each in (np.min, np.max))
            np.testing.assert_allclose(bounds, [*least, *most], atol=6)
            assert (bounds[:2] <= np.add(least, 1e-6)).all() and (bounds[2:] >= np.subtract(most, 1e-6)).all()
    assert num_compared >= 30


def test_a_box_that_is_not_in_the_output_has_no_size():
    matrix = view_of(1, ViewConfig(perspective=0.1, crop_prob=0.0, crop_scale=(1.0, 1.0)))
    assert not warp_boxes(np.array([[500.0, 500, 520, 520]]), matrix, SIZE_HW).any()
    assert warp_boxes(np.zeros((0, 4)), matrix, SIZE_HW).shape == (0, 4)


def bounds_of_bright(image):
    x, y, width, height = cv2.boundingRect((image[..., 0] > 185).astype(np.uint8))
    return np.array([x, y, x + width, y + height])


@pytest.mark.parametrize("config", [VIEW, ViewConfig(0.0, 1.0, (0.5, 0.9)), ViewConfig(0.2, 0.0, (1.0, 1.0))])
def test_an_image_and_its_box_are_warped_alike(config):
    image = np.zeros((*SIZE_HW, 3), np.uint8)
    image[40:60, 50:90] = 255
    black, box, no_boxes = np.zeros_like(image), np.array([[50.0, 40, 90, 60]]), np.zeros((0, 4))
    for seed in range(6):
        view = view_of(seed, config)
        matrix = np.eye(2, 3) if view is None else as_affine(view)
        # The same view of a mosaic, whose four images are one with the box, and three black ones.
        center = MosaicParameters((96, 128), compose(view, np.array([[1.0, 0, -20], [0, 1.0, -10]])))
        both = (
            (warp_image(image, matrix), warp_boxes(box, matrix, SIZE_HW)),
            mosaic([image, black, black, black], [box, no_boxes, no_boxes, no_boxes], SIZE_HW, center),
        )
        for picture, (bounds,) in both:
            assert (bounds[2:] - bounds[:2] > 6).all()
            np.testing.assert_allclose(bounds_of_bright(picture), bounds, atol=3)


def test_a_projective_matrix_without_perspective_gives_the_mosaic_of_the_affine_one():
    rng = np.random.default_rng(5)
    images = [cv2.GaussianBlur(rng.integers(0, 256, (96, 128, 3)).astype(np.uint8), (0, 0), 3) for _ in range(4)]
    boxes = [np.array([[10.0, 20, 60, 70]])] * 4
    drawn = draws.draw_mosaic(rng, SIZE_HW, augment_config(scale=(0.8, 1.2)))
    projective = MosaicParameters(drawn.center_yx, np.vstack([drawn.matrix, (0, 0, 1 + 1e-12)]))
    (one, one_boxes), (other, other_boxes) = (mosaic(images, boxes, SIZE_HW, each) for each in (drawn, projective))
    assert np.percentile(np.abs(one.astype(int) - other), 97) <= 2
    visible = (one_boxes[:, 2:] - one_boxes[:, :2]).min(axis=1) > 1
    assert visible.any()
    # The projective bounds are of the visible part, which is smaller than the clipped bounds of a rotated box.
    assert (other_boxes[visible][:, :2] >= one_boxes[visible][:, :2] - 1e-6).all()
    assert (other_boxes[visible][:, 2:] <= one_boxes[visible][:, 2:] + 1e-6).all()


def test_a_crop_stays_an_affine_map_and_keeps_the_aspect():
    for seed in range(20):
        matrix = as_affine(view_of(seed, ViewConfig(0.0, 1.0, (0.4, 0.9))))
        assert matrix.shape == (2, 3) and matrix[0, 0] == matrix[1, 1] and 1 / 0.9 <= matrix[0, 0] <= 1 / 0.4
        corners = (np.array([[0, 0], [128, 96]]) - matrix[:, 2]) / matrix[0, 0]
        assert (corners[0] >= -1e-9).all() and (corners[1] <= np.array([128, 96]) + 1e-9).all()
