"""Detector with slices: images go one by one, each number of tiles is one program, and grown tiles are a warning."""

import dataclasses
import re

import numpy as np
import pytest

from tests.inference.white_pixels import CLASS_NAMES, WhitePixels, white_box
from tests.training import toy
from yolox_jax import Detector
from yolox_jax.data.tiling import Tiling
from yolox_jax.inference import pretrained
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.training.compilation import CompileCounter

_SIZE = (64, 96)


def test_with_tiles_a_list_goes_image_by_image_and_each_number_of_tiles_is_logged_once():
    white, logged, seen = WhitePixels(), [], []

    def predict(tiles):
        seen.append(tiles.mask.sum())
        found = white(tiles.images[0, :1])  # the whole image
        return dataclasses.replace(found, boxes=found.boxes / tiles.ratios[0, 0])

    detector = Detector(predict, CLASS_NAMES, _SIZE, log=logged.append, tiling=Tiling("auto", 0.2))
    small, huge = white_box(64, 96, (3, 4, 9, 10)), np.zeros((500, 720, 3), np.uint8)
    found = detector([white_box(150, 240, (30, 40, 90, 100)), small, huge] * 2)
    assert seen == [10, 1, 37] * 2
    counts = [
        re.match(r"compiling for up to (\d+) tiles at |warning: an image of 500x720 ", text)[1] for text in logged
    ]
    assert counts == ["10", "1", None, "37"]  # the warning before the third
    np.testing.assert_allclose(found[3].boxes_xyxy, [[30, 40, 90, 100]], atol=4)


@pytest.mark.slow
def test_with_slices_an_image_of_another_size_compiles_nothing():
    config = DetectConfig(slices="2x2", conf=0.0, max_detections=5, num_candidates=20)
    names = ("a", "b", "c")
    loaded = pretrained.Pretrained("toy", toy.MODEL, toy.create_variables(), names, (64, 64))
    detector = Detector(pretrained.make_detect(loaded, config), names, (64, 64), log=str, tiling=config.tiling)
    counter = CompileCounter()
    detector(np.zeros((90, 130, 3), np.uint8))
    num_programs = counter.num_programs
    detector(np.zeros((300, 40, 3), np.uint8))
    assert counter.num_programs == num_programs > 0
