"""Detection in tiles: boxes in pixels of the image, each object once, and cut ones only if nothing shows them whole."""

import jax
import numpy as np
import pytest

from tests.evaluation.test_evaluate import SeesWhite
from tests.training import toy
from yolox_jax.data import tiling
from yolox_jax.data.tiling import Tiling
from yolox_jax.detection import nms
from yolox_jax.inference import predict
from yolox_jax.inference.predict import DetectConfig, predict_images

_SIZE = (64, 96)
_CONFIG = DetectConfig(conf=0.0, iou=0.5, max_detections=20, num_candidates=300)


@pytest.fixture(scope="module")
def detect():
    """SeesWhite finds one box in each tile, which is all of a tile that has nothing white in it."""

    @jax.jit
    def program(tiles):
        return predict_images(SeesWhite(), None, jax.tree.map(lambda x: x[None], tiles), _CONFIG)

    def detect(image_hw, box_xyxy, count=None):
        image = np.zeros((*image_hw, 3), np.uint8)
        x1, y1, x2, y2 = box_xyxy
        image[y1:y2, x1:x2] = 255
        found = jax.device_get(program(Tiling("auto", 0.2).cut(image, _SIZE, count)))
        return found.boxes[0][found.mask[0]], found.scores[0][found.mask[0]]

    return detect


@pytest.mark.parametrize("box_xyxy", [(5, 5, 20, 20), (82, 30, 94, 45), (130, 90, 160, 120), (200, 120, 250, 150)])
def test_an_object_that_several_tiles_show_is_one_box_in_pixels_of_the_image(detect, box_xyxy):
    found, scores = detect((150, 250), box_xyxy)
    whole = scores > 0.2  # boxes of empty tiles end at their edges, and count half
    np.testing.assert_allclose(scores[whole], 0.25)
    near = np.abs(found[whole] - box_xyxy).max(axis=1) < 3  # the whole image shows it at 0.38 of its size
    assert near.all() and near.sum() == 1


def test_of_an_object_that_all_tiles_cut_only_the_box_of_the_whole_image_stays(detect):
    box_xyxy = (20, 20, 230, 130)
    found, scores = detect((150, 250), box_xyxy)
    assert len(found) == 1 and scores == pytest.approx(0.25)
    np.testing.assert_allclose(found[0], box_xyxy, atol=3)


def test_padding_tiles_give_no_detection_even_at_threshold_zero(detect):
    few, many = detect((60, 90), (10, 10, 40, 40)), detect((60, 90), (10, 10, 40, 40), count=10)
    for one, other in zip(few, many, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert not tiling.empty(_SIZE, 3).mask.any()


def test_a_cut_box_is_suppressed_by_what_covers_it_and_suppresses_no_whole_box():
    boxes_xyxy = np.array([[0, 0, 100, 100], [0, 0, 30, 30], [0, 0, 31, 30], [200, 0, 220, 20]], np.float32)
    labels, mask = np.zeros(4, int), np.ones(4, bool)
    cut = np.array([False, False, True, True])
    np.testing.assert_array_equal(nms.keep_mask(boxes_xyxy, labels, mask, 0.5, cut), [True, True, False, True])
    np.testing.assert_array_equal(nms.keep_mask(boxes_xyxy, np.arange(4), mask, 0.5, cut), [True] * 4)


@pytest.mark.slow
def test_the_network_sees_tiles_one_after_another_as_it_sees_them_in_one_batch(monkeypatch):
    model, variables = toy.MODEL, toy.create_variables()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*image_hw, 3), np.uint8) for image_hw in ((64, 100), (64, 64))]
    tiles = jax.tree.map(lambda *x: np.stack(x), *(Tiling("auto", 0.2).cut(image, (64, 64), 5) for image in images))
    assert tiles.mask.sum(axis=1).tolist() == [3, 1]
    monkeypatch.setattr(predict, "detect_in_tiles", lambda predictions, anchors, tiles, **options: predictions)

    def see():
        return jax.jit(lambda tiles: predict_images(model, variables, tiles, _CONFIG))(tiles)

    one_by_one = see()
    monkeypatch.setattr(predict, "over_tiles", lambda function, tiles, mask: function(tiles))
    for one, other in zip(jax.tree.leaves(one_by_one), jax.tree.leaves(see()), strict=True):
        np.testing.assert_allclose(one[tiles.mask], other[tiles.mask], rtol=1e-5, atol=1e-5)
        assert np.asarray(one)[~tiles.mask].any() == 0  # a CPU skips padding
