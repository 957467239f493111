"""Pictures of detections."""

import cv2

from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.visualize import sheets
from yolox_jax.visualize.drawing import class_colour


def test_the_sheet_shows_detections_above_the_threshold_at_their_place(tmp_path):
    source = ShapesSource(num_images=3, seed=0)
    wide = {"category_id": 2, "bbox": [10.0, 20.0, 40.0, 30.0]}
    detections = [
        {**wide, "image_id": source.image_id(0), "score": 0.9},
        {**wide, "image_id": source.image_id(1), "score": 0.1},
    ]
    sheets.write_picture(tmp_path / "sheet.png", sheets.predictions_sheet(source, detections))
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (320, 960, 3)
    for place, shown in ((0, True), (1, False)):
        _, scale = sheets.fit(source[place].image)
        pixel = sheet[round(35 * scale), place * 320 + round(10 * scale)]
        assert (pixel == class_colour(1)).all() == shown
