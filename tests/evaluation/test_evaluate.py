"""Evaluation of a whole split, with a predict function that knows the answer."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import material
from tests.training import toy
from yolox_jax.augment.geometry import letterbox
from yolox_jax.data.sources.coco import CocoSource
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.tiling import Tiling
from yolox_jax.detection.anchors import encode, make_anchors
from yolox_jax.errors import UserError
from yolox_jax.evaluation.evaluate import evaluate
from yolox_jax.inference.predict import DetectConfig, make_predict, predict_images
from yolox_jax.mesh import make_mesh, place
from yolox_jax.models import yolox
from yolox_jax.types import Detections, Predictions
from yolox_jax.weights.load import load_weights

_SIZE = (96, 96)
_NUM_SLOTS = 8


class Oracle:
    """Detects in each letterboxed image exactly the boxes of its source."""

    def __init__(self, source: ShapesSource):
        self._answers = {}
        for example in source:
            image, ratio = letterbox(example.image, _SIZE)
            self._answers[image.tobytes()] = (example.boxes_xyxy * ratio, example.labels)
        self.num_calls = 0

    def __call__(self, variables, images) -> Detections:
        self.num_calls += 1
        batch = len(images)
        boxes, labels = np.zeros((batch, _NUM_SLOTS, 4), np.float32), np.zeros((batch, _NUM_SLOTS), np.int32)
        mask = np.zeros((batch, _NUM_SLOTS), bool)
        for i, image in enumerate(images):
            # A padding image is unknown here and gets a detection, which must not count.
            found, label = self._answers.get(image.tobytes(), (np.full((1, 4), 5.0), np.zeros(1)))
            boxes[i, : len(found)], labels[i, : len(found)], mask[i, : len(found)] = found, label, True
        return Detections(boxes, mask * 0.9, labels, mask)


@pytest.fixture(scope="module")
def source():
    return ShapesSource(num_images=10, seed=3)


def test_perfect_detections_have_an_ap_of_one(source):
    oracle = Oracle(source)
    result = evaluate(oracle, None, source, size_hw=_SIZE, batch_size=4)
    assert oracle.num_calls == 3
    assert result.num_images == 10
    assert result.ap.stats["AP"] == pytest.approx(1.0)
    num_boxes = sum(len(example.boxes_xyxy) for example in source)
    assert len(result.detections) == num_boxes


def test_the_metric_may_be_voc_and_an_unknown_one_is_refused(source):
    result = evaluate(Oracle(source), None, source, size_hw=_SIZE, batch_size=4, metric="voc")
    assert result.ap.stats == pytest.approx({"AP": 1, "AP50": 1, "AP07": 1, "mAP07": 1, "mAP12": 1})
    with pytest.raises(UserError, match="config.eval.metric is 'pascal': choose one of coco, voc"):
        evaluate(Oracle(source), None, source, size_hw=_SIZE, batch_size=4, metric="pascal")


def test_boxes_are_mapped_back_to_the_pixels_of_each_image(source):
    result = evaluate(Oracle(source), None, source, size_hw=_SIZE, batch_size=4)
    for index in range(len(source)):
        example = source[index]
        found = [d["bbox"] for d in result.detections if d["image_id"] == example.image_id]
        xywh = np.concatenate(
            [example.boxes_xyxy[:, :2], example.boxes_xyxy[:, 2:] - example.boxes_xyxy[:, :2]], axis=1
        )
        np.testing.assert_allclose(np.array(found).reshape(-1, 4), xywh, atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_with_tiles_each_image_is_one_row_and_its_boxes_are_in_its_pixels(source, batch_size):
    oracle = Oracle(source)
    counts, logged = [], []

    def predict(variables, tiles):
        counts.append(tiles.mask.shape)
        found = oracle(variables, tiles.images[:, 0])
        return dataclasses.replace(found, boxes=found.boxes / tiles.ratios[:, :1, None])

    tiling = Tiling("40", 0.2)
    result = evaluate(predict, None, source, size_hw=_SIZE, batch_size=batch_size, tiling=tiling, log=logged.append)
    assert result.ap.stats["AP"] == pytest.approx(1.0) and result.num_images == 10
    needed = [tiling.count(example.image.shape[:2], _SIZE) for example in source]
    batches = [needed[start : start + batch_size] for start in range(0, 10, batch_size)]
    assert counts == [(batch_size, max(batch)) for batch in batches]
    assert [int(text.split()[4]) for text in logged] == list(dict.fromkeys(map(max, batches)))


def test_the_first_image_whose_tiles_are_larger_than_asked_is_named_once(source):
    oracle, logged, tiling = Oracle(source), [], Tiling("32", 0.5)
    predict = lambda _, tiles: oracle(None, tiles.images[:, 0])
    evaluate(predict, None, source, size_hw=_SIZE, batch_size=4, tiling=tiling, log=logged.append)
    warnings = list(filter(None, (tiling.warning(example.image.shape[:2], _SIZE) for example in source)))
    assert len(set(warnings)) > 1 and [text for text in logged if "tiles of" in text] == warnings[:1]


@pytest.mark.slow
def test_eight_devices_give_the_detections_of_one():
    images = toy.random_batch(0).images
    config = DetectConfig(conf=0.01, max_detections=20, num_candidates=50)
    variables = toy.MODEL.init(jax.random.key(0), jnp.zeros((1, toy.SIZE, toy.SIZE, 3)))
    one, eight = (
        jax.device_get(make_predict(toy.MODEL, mesh, config)(place(variables, mesh), images))
        for mesh in (make_mesh(1), make_mesh(8))
    )
    assert one.mask.any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, eight)


class SeesWhite:
    """A model that predicts the box around the white pixels of each image at every anchor."""

    def apply(self, variables, images_BHW3, train):
        white_BHW = (images_BHW3 > 127).all(axis=3)
        sides = []
        for along in (2, 1):  # x, then y
            seen = white_BHW.any(axis=3 - along)
            first, last = jnp.argmax(seen, axis=1), seen.shape[1] - jnp.argmax(seen[:, ::-1], axis=1)
            sides.append(((first + last) / 2, last - first))
        (x, width), (y, height) = sides
        anchors = make_anchors(images_BHW3.shape[1:3])
        box_BA4 = jnp.broadcast_to(jnp.stack([x, y, width, height], axis=1)[:, None], (len(x), len(anchors.strides), 4))
        logits_BA = jnp.zeros(box_BA4.shape[:2])
        deltas_BA4 = jax.vmap(encode, (0, None))(box_BA4.astype(jnp.float32), anchors)
        return Predictions(deltas_BA4, logits_BA, logits_BA[..., None])


def test_all_views_of_tta_place_an_object_at_the_same_boxes():
    images = np.zeros((2, 64, 96, 3), np.uint8)
    images[0, 20:44, 60:90], images[1, 5:25, 8:40] = 255, 255
    config = DetectConfig(conf=0.0, iou=1.0, max_detections=1000, num_candidates=1000, tta=True)
    found = jax.jit(lambda images: predict_images(SeesWhite(), None, images, config))(images)
    num_anchors = [len(make_anchors(size).strides) for size in ((64, 96), (64, 96), (64, 96), (96, 128))]
    assert found.mask.sum(axis=1).tolist() == [sum(num_anchors)] * 2
    for image, box_xyxy in enumerate(([60, 20, 90, 44], [8, 5, 40, 25])):
        boxes = np.asarray(found.boxes[image])[np.asarray(found.mask[image])]
        np.testing.assert_allclose(boxes, np.broadcast_to(box_xyxy, boxes.shape), atol=1.01)


def test_results_are_written_as_json_and_an_unwritable_file_is_named(source, tmp_path):
    result = evaluate(Oracle(source), None, source, size_hw=_SIZE, batch_size=4)
    result.write(tmp_path / "results.json")
    with pytest.raises(UserError, match="results.json/no.json cannot be written"):
        result.write(tmp_path / "results.json" / "no.json")
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["AP50"] == pytest.approx(1.0)
    assert [row["name"] for row in content["per_class"]] == list(source.class_names)


@pytest.mark.slow
def test_the_official_nano_has_the_ap_of_the_reference_on_photographs():
    folder = material("data/coco_val100")
    source = CocoSource(folder / "annotations.json", folder / "images")
    weights = str(material("weights/yolox_nano_coco.pth"))
    mesh = make_mesh(1)
    variables = place(load_weights(weights, "nano", source.class_names), mesh)
    predict = make_predict(yolox.create("nano", 80), mesh, DetectConfig())
    result = evaluate(predict, variables, source, size_hw=(416, 416), batch_size=10)
    assert result.ap.stats["AP"] == pytest.approx(0.3262, abs=0.001)
    assert result.ap.stats["AP50"] == pytest.approx(0.5133, abs=0.001)
