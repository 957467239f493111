"""Pictures of detections."""

import cv2
import numpy as np

from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.tools import draw


def test_a_box_is_drawn_in_its_classs_colour_and_the_image_is_left_alone():
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw.draw_boxes(image, np.array([[100.0, 80.0, 180.0, 150.0]]), [3], ["star 0.9"])
    assert not image.any()
    np.testing.assert_array_equal(drawn[120, 100], draw.class_colour(3))
    np.testing.assert_array_equal(drawn[120, 180], draw.class_colour(3))
    assert not drawn[120, 140].any()


def test_a_caption_stays_inside_the_picture():
    drawn = draw.draw_boxes(
        np.zeros((100, 100, 3), np.uint8), np.array([[90.0, 0.0, 99.0, 50.0]]), [0], ["circle 0.91"]
    )
    colour = np.array(draw.class_colour(0))
    assert (drawn[:14] == colour).all(axis=2).any(axis=0).sum() > 40


def test_the_sheet_shows_detections_above_the_threshold_at_their_place(tmp_path):
    source = ShapesSource(num_images=3, seed=0)
    wide = {"category_id": 2, "bbox": [10.0, 20.0, 40.0, 30.0]}
    detections = [
        {**wide, "image_id": source.image_id(0), "score": 0.9},
        {**wide, "image_id": source.image_id(1), "score": 0.1},
    ]
    draw.write_predictions(tmp_path / "sheet.png", source, detections)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (320, 960, 3)
    for place, shown in ((0, True), (1, False)):
        _, scale = draw.fit(source[place].image)
        pixel = sheet[round(35 * scale), place * 320 + round(10 * scale)]
        assert (pixel == draw.class_colour(1)).all() == shown
