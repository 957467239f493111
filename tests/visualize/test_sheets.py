"""Sheets of detections, and pictures written to files."""

import resource

import cv2
import numpy as np
import pytest

from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.errors import UserError
from yolox_jax.visualize import sheets
from yolox_jax.visualize.drawing import class_colour


def test_the_sheet_shows_detections_above_the_score_threshold_at_their_place(tmp_path):
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


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("sheet.jpeg2", 4, r"sheet\.jpeg2 cannot be written \(.*\): choose another ending"),
        ("sheet", 4, r"sheet cannot be written \(.*\): choose another ending"),
        ("sheet.jpg", 70000, r"sheet\.jpg cannot be written at 70000x2 pixels: choose \.png"),
        (f"{'x' * 300}.png", 4, r"x\.png cannot be written \(File name too long\): "),
    ],
)
def test_a_picture_that_cannot_be_written_is_named_with_the_reason(tmp_path, name, width, message):
    with pytest.raises(UserError, match=message):
        sheets.write_picture(tmp_path / name, np.zeros((2, width, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_whole_leaves_the_old_one(tmp_path):
    path, image = tmp_path / f"{'é' * 120}.png", np.zeros((8, 8, 3), np.uint8)  # a name may have 255 bytes
    sheets.write_picture(path, image)
    old, (_, most) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, most))
    try:
        with pytest.raises(UserError, match=r"\.png cannot be written \(File too large\)"):
            sheets.write_picture(path, image + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_a_picture_of_a_run_is_recorded_with_its_path_and_size(tmp_path):
    record = sheets.keep_picture(tmp_path, "batch_7", np.zeros((6, 8, 3), np.uint8))
    assert record == {"picture": "pictures/batch_7.jpg", "height_width": [6, 8]}
    assert cv2.imread(str(tmp_path / record["picture"])).shape == (6, 8, 3)


def test_a_title_that_is_too_long_for_the_width_is_drawn_smaller():
    image = np.zeros((4, 100, 3), np.uint8)
    text = "a title of about forty letters, in full"
    needed = int(np.flatnonzero(sheets.titled(image, text, 800)[: sheets.TITLE_HEIGHT].any(axis=(0, 2))).max())
    bar = sheets.titled(image, text, int(0.8 * needed))[: sheets.TITLE_HEIGHT]
    assert not bar[:, -2:].any()
