"""Boxes and captions on pictures."""

import numpy as np

from yolox_jax.visualize.drawing import class_colour, draw_boxes


def test_a_box_is_drawn_in_the_color_of_its_class_on_a_copy_of_the_image():
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw_boxes(image, np.array([[100.0, 80.0, 180.0, 150.0]]), [3], ["star 0.9"])
    assert not image.any()
    np.testing.assert_array_equal(drawn[120, 100], class_colour(3))
    np.testing.assert_array_equal(drawn[120, 180], class_colour(3))
    assert not drawn[120, 140].any()


def test_a_caption_stays_inside_the_image():
    drawn = draw_boxes(np.zeros((100, 100, 3), np.uint8), np.array([[90.0, 0.0, 99.0, 50.0]]), [0], ["circle 0.91"])
    color = np.array(class_colour(0))
    assert (drawn[:14] == color).all(axis=2).any(axis=0).sum() > 40


def test_the_visible_part_of_a_box_far_larger_than_the_image_is_drawn():
    """Boxes of an untrained network may be infinite or NaN."""
    boxes = np.array([[-1e30, 20.0, np.inf, 60.0], [np.nan, 0, 1, 1e12]])
    drawn = draw_boxes(np.zeros((100, 100, 3), np.uint8), boxes, [0, 1], ["", ""])
    assert (drawn[20, 5:] == class_colour(0)).all() and (drawn[60, 5:] == class_colour(0)).all()
    assert not drawn[40, 5:].any()
