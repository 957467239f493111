"""Compares one warp per image with the reference, which resizes, places and warps a canvas."""

import cv2
import numpy as np
import pytest

from tests.material import golden
from yolox_jax.augment.geometry import fit, fit_ratio
from yolox_jax.augment.mosaic import MosaicParameters, mosaic

_ARRAYS = golden("augment_mosaic")


def _golden_mosaic():
    size_hw = tuple(int(side) for side in _ARRAYS["size_hw"])
    images = [_ARRAYS[f"image{i}"] for i in range(4)]
    boxes = [_ARRAYS[f"boxes{i}_xyxy"] * fit_ratio(image.shape[:2], size_hw) for i, image in enumerate(images)]
    center_yx = tuple(int(c) for c in _ARRAYS["center_yx"])
    return mosaic(
        [fit(image, size_hw) for image in images], boxes, size_hw, MosaicParameters(center_yx, _ARRAYS["matrix"])
    )


def _seams() -> np.ndarray:
    """Returns [H, W], True within a few pixels of the border between two images or between an image and the fill."""
    canvas, matrix = _ARRAYS["canvas"], _ARRAYS["matrix"]
    y, x = _ARRAYS["center_yx"]
    fill = (canvas == 114).all(axis=2).astype(np.uint8)
    near = cv2.dilate(fill, np.ones((5, 5))) - cv2.erode(fill, np.ones((5, 5)))
    near[y - 2 : y + 2] = 1
    near[:, x - 2 : x + 2] = 1
    height, width = _ARRAYS["warped"].shape[:2]
    warped = cv2.warpAffine(near.astype(np.float32), matrix, (width, height))
    return cv2.dilate((warped > 0).astype(np.uint8), np.ones((3, 3))) > 0


def test_boxes_are_the_references():
    _, boxes = _golden_mosaic()
    np.testing.assert_allclose(boxes, _ARRAYS["warped_boxes_xyxy"], atol=1e-3)


def test_the_image_is_the_references_away_from_the_seams():
    image, _ = _golden_mosaic()
    error = np.abs(image.astype(int) - _ARRAYS["warped"].astype(int))[~_seams()]
    assert error.size > 0.9 * image.size
    assert error.mean() <= 0.05
    assert np.percentile(error, 99) <= 1


@pytest.mark.parametrize("center_yx", [(32, 32), (64, 64), (95, 40)])
def test_each_image_is_in_its_quarter_and_nowhere_else(center_yx):
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    images = [np.full((30 + 10 * i, 64, 3), color, np.uint8) for i, color in enumerate(colors)]
    size_hw, (y, x) = (64, 64), center_yx
    whole = np.zeros((128, 128, 3), np.uint8)
    for dy in (0, 64):
        for dx in (0, 64):  # four windows of the canvas
            window = np.array([[1.0, 0, -dx], [0, 1.0, -dy]])
            part, _ = mosaic(images, [np.zeros((0, 4))] * 4, size_hw, MosaicParameters(center_yx, window))
            whole[dy : dy + 64, dx : dx + 64] = part
    for color, rows, columns in zip(
        colors,
        (slice(0, y), slice(0, y), slice(y, 128), slice(y, 128)),
        (slice(0, x), slice(x, 128), slice(0, x), slice(x, 128)),
        strict=True,
    ):
        quarter = np.zeros((128, 128), bool)
        quarter[rows, columns] = True
        is_color = (whole == color).all(axis=2)
        assert is_color[quarter].any()
        assert not is_color[~quarter].any()
    # The four meet at the center without a gap.
    assert not (whole[y - 2 : y + 2, x - 2 : x + 2] == 114).all(axis=2).any()


def test_a_box_follows_its_image():
    image = np.zeros((64, 64, 3), np.uint8)
    image[10:30, 20:50] = 255
    box = np.array([[20.0, 10.0, 50.0, 30.0]])
    nothing = [np.zeros((0, 4))] * 3
    parameters = MosaicParameters((40, 40), np.array([[0.9, 0.0, -30.0], [0.0, 0.9, -28.0]]))
    output, boxes = mosaic([np.zeros_like(image)] * 3 + [image], [*nothing, box], (64, 64), parameters)
    rows, columns = np.nonzero(output[..., 0] > 200)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(boxes[0], found, atol=1.5)


def test_boxes_outside_the_output_are_clipped_to_nothing_and_kept():
    image = np.zeros((64, 64, 3), np.uint8)
    far = MosaicParameters((64, 64), np.array([[1.0, 0, 1000], [0, 1.0, 1000]]))
    output, boxes = mosaic([image] * 4, [np.array([[1.0, 1, 5, 5]])] * 4, (64, 64), far)
    assert (output == 114).all()
    np.testing.assert_array_equal(boxes, [[64, 64, 64, 64]] * 4)
