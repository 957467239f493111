"""Evaluation of a whole split, with a network that knows the answer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import material
from tests.training import toy
from yolox_jax.data.geometry import letterbox
from yolox_jax.data.sources.coco import CocoSource
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.evaluation.evaluate import EvalConfig, evaluate, make_predict
from yolox_jax.models import yolox
from yolox_jax.training import parallel
from yolox_jax.training.weights import load_weights
from yolox_jax.types import Detections

_SIZE = (96, 96)
_NUM_SLOTS = 8


class Oracle:
    """Finds in each letterboxed image exactly the boxes its source drew."""

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
            # A padding row is unknown here: what is "found" in it must not count.
            found, label = self._answers.get(image.tobytes(), (np.full((1, 4), 5.0), np.zeros(1)))
            boxes[i, : len(found)], labels[i, : len(found)], mask[i, : len(found)] = found, label, True
        return Detections(boxes, mask * 0.9, labels, mask)


@pytest.fixture(scope="module")
def source():
    return ShapesSource(num_images=10, seed=3)


def test_a_network_that_knows_every_box_has_an_ap_of_one(source):
    oracle = Oracle(source)
    result = evaluate(oracle, None, source, size_hw=_SIZE, batch_size=4)
    assert oracle.num_calls == 3
    assert result.num_images == 10
    assert result.ap.stats["AP"] == pytest.approx(1.0)
    num_boxes = sum(len(example.boxes_xyxy) for example in source)
    assert len(result.detections) == num_boxes


def test_the_metric_may_be_vocs(source):
    result = evaluate(Oracle(source), None, source, size_hw=_SIZE, batch_size=4, metric="voc")
    assert result.ap.stats == pytest.approx({"AP": 1, "AP50": 1, "mAP07": 1, "mAP12": 1})
    with pytest.raises(ValueError, match="choose one of coco, voc"):
        evaluate(Oracle(source), None, source, size_hw=_SIZE, batch_size=4, metric="pascal")


def test_boxes_are_mapped_back_to_each_images_own_pixels(source):
    result = evaluate(Oracle(source), None, source, size_hw=_SIZE, batch_size=4)
    for index in range(len(source)):
        example = source[index]
        found = [d["bbox"] for d in result.detections if d["image_id"] == example.image_id]
        xywh = np.concatenate(
            [example.boxes_xyxy[:, :2], example.boxes_xyxy[:, 2:] - example.boxes_xyxy[:, :2]], axis=1
        )
        np.testing.assert_allclose(np.array(found).reshape(-1, 4), xywh, atol=1e-3)


def test_eight_devices_find_what_one_finds():
    images = toy.random_batch(0).images
    config = EvalConfig(conf=0.01, max_detections=20, num_candidates=50)
    variables = toy.MODEL.init(jax.random.key(0), jnp.zeros((1, toy.SIZE, toy.SIZE, 3)))
    one, eight = (
        jax.device_get(make_predict(toy.MODEL, mesh, config)(parallel.place(variables, mesh), images))
        for mesh in (parallel.make_mesh(1), parallel.make_mesh(8))
    )
    assert one.mask.any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, eight)


def test_results_are_written_as_json(source, tmp_path):
    result = evaluate(Oracle(source), None, source, size_hw=_SIZE, batch_size=4)
    result.write(tmp_path / "results.json")
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["AP50"] == pytest.approx(1.0)
    assert [row["name"] for row in content["per_class"]] == list(source.class_names)


@pytest.mark.slow
def test_the_official_nano_has_the_references_ap_on_photographs():
    folder = material("data/coco_val100")
    source = CocoSource(folder / "annotations.json", folder / "images")
    weights = str(material("weights/yolox_nano_coco.pth"))
    mesh = parallel.make_mesh(1)
    variables = parallel.place(load_weights(weights, "nano", source.class_names), mesh)
    predict = make_predict(yolox.create("nano", 80), mesh, EvalConfig())
    result = evaluate(predict, variables, source, size_hw=(416, 416), batch_size=10)
    assert result.ap.stats["AP"] == pytest.approx(0.3262, abs=0.001)
    assert result.ap.stats["AP50"] == pytest.approx(0.5133, abs=0.001)
