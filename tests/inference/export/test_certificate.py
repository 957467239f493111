"""Certificates: what they hold, how a file is compared with them, and --verify with real files and runtimes."""

import dataclasses
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from tests import programs
from tests.material import golden_shapes, golden_state_dict, material
from yolox_jax.data import images
from yolox_jax.errors import UserError
from yolox_jax.inference import pretrained
from yolox_jax.inference.export import certificate, exported_file, runtimes, stablehlo
from yolox_jax.inference.export.certificate import Bound
from yolox_jax.inference.export.formats import FORMATS, ExportConfig
from yolox_jax.inference.predict import DetectConfig, of_one_image
from yolox_jax.types import Detections
from yolox_jax.weights.torch_writer import save_pth

_NAMES = ("gray", "white")
_SIZE = (64, 96)
_CONFIG = DetectConfig(conf=0.25, iou=0.5, max_detections=4)


def _run(shift=0.0, less=0.0, label=1, number=None):
    """A detector that finds a white box per 20 white rows of the image, with scores 0.9, 0.6 and 0.3."""

    def run(images_BHW3):
        assert images_BHW3.dtype == np.uint8 and images_BHW3.shape == (1, *_SIZE, 3)
        count = number if number is not None else int((images_BHW3[0, :, 0, 0] == 255).sum()) // 20
        boxes = np.array([[0, 20 * i + shift, 30, 20 * i + 20] for i in range(4)], np.float32)
        scores = np.array([0.9, 0.6, 0.3, 0.26], np.float32) - np.float32(less)
        arrays = boxes, scores, np.full(4, label, np.int32), np.arange(4) < count
        return Detections(*(array[None] for array in arrays))

    return run


def _picture(num_white):
    picture = np.zeros((60, 90, 3), np.uint8)
    picture[: 20 * num_white] = 255
    return picture


def _make(*counts, bound=certificate.FLOAT32):
    # 60x90 pixels fit 64x96 at 16/15: 21 rows for each 20.
    return certificate.make(_run(), _NAMES, _SIZE, _CONFIG, bound, map(_picture, counts))


def test_the_images_with_the_most_detections_are_taken():
    made = _make(0, 1, 3, 2, 0, 1)
    assert [len(each.found.scores) for each in made.images] == [3, 2, 1]
    assert made.num_detections == 6


def test_no_more_than_eight_pictures_are_read():
    def pictures():
        yield from map(_picture, range(8))
        raise AssertionError("a ninth was asked for")

    assert len(certificate.make(_run(), _NAMES, _SIZE, _CONFIG, certificate.FLOAT32, pictures()).images) == 3


def test_with_slices_the_images_are_cut_into_tiles():
    config, num_tiles = dataclasses.replace(_CONFIG, slices="auto"), []

    def detect(tiles):
        num_tiles.append(int(tiles.mask.sum()))
        return _run()(tiles.images[:, 0])

    run = of_one_image(detect, config, _SIZE)
    made = certificate.make(run, _NAMES, _SIZE, config, certificate.FLOAT32, [_picture(1)])
    assert num_tiles == [3] and made.images[0].image_HW3.shape == (64, 144, 3)
    assert certificate.compare(certificate.read(made.to_json(), "file"), run).is_within(Bound(0, 0))


def test_a_certificate_that_is_read_back_is_the_same():
    made = _make(2, 0)
    read = certificate.read(made.to_json(), "file")
    assert (read.class_names, read.detect, read.bound) == (_NAMES, _CONFIG, certificate.FLOAT32)
    for before, after in zip(made.images, read.images, strict=True):
        np.testing.assert_array_equal(before.image_HW3, after.image_HW3)
        for name in ("boxes_xyxy", "scores", "labels"):
            np.testing.assert_array_equal(getattr(before.found, name), getattr(after.found, name))


def test_the_drawn_images_are_the_same_each_time_and_take_little_space():
    def nothing(images_BHW3):
        return Detections(np.zeros((1, 1, 4)), np.zeros((1, 1)), np.zeros((1, 1), np.int32), np.zeros((1, 1), bool))

    first, again = (certificate.make(nothing, _NAMES, (416, 640), _CONFIG, certificate.FLOAT32) for _ in range(2))
    assert first.to_json() == again.to_json()
    assert len(first.to_json()) < 1_500_000
    assert {each.image_HW3.shape for each in first.images} == {(416, 640, 3)}


def test_the_largest_differences_are_measured():
    found = certificate.compare(_make(1, 3), _run(shift=0.75, less=0.01))
    assert found.num_detections == 4 and found.only_in_one == ()
    assert found.box_pixels == 0.75 and found.score == pytest.approx(0.01, abs=1e-6)
    assert found.is_within(Bound(0.75, 0.011))
    assert not found.is_within(Bound(0.7, 0.011)) and not found.is_within(Bound(0.75, 0.009))


def test_a_certificate_that_expects_nothing_says_so():
    for count, said in ((0, True), (1, False)):
        made = _make(count)
        lines = certificate.compare(made, _run()).describe(made, made.bound)
        assert ("nothing is expected in the test images" in lines) is said


@pytest.mark.parametrize(
    ("run", "named"),
    [
        (_run(number=1), ["only the run finds white 0.600 at (0, 20, 30, 40) in test image 1"]),
        (_run(number=3), ["only the file finds white 0.300 at (0, 40, 30, 60) in test image 1"]),
        (_run(number=4), 2 * ["only the file"]),
        (_run(label=0), 2 * ["only the run finds white"] + 2 * ["only the file finds gray"]),
    ],
)
def test_a_detection_that_only_one_finds_is_named_and_fails(run, named):
    found = certificate.compare(_make(2), run)
    assert len(found.only_in_one) == len(named) and all(map(str.startswith, found.only_in_one, named))
    assert not found.is_within(Bound(1e6, 1))


def test_a_detection_near_the_threshold_may_be_missing_within_the_bound_of_the_score():
    assert certificate.compare(_make(3), _run(number=2)).only_in_one
    assert not certificate.compare(_make(3), _run(number=2), Bound(0, 0.06)).only_in_one


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda fields: {}, "has format_version null, not 1"),
        (lambda fields: fields | {"format_version": 2}, "has format_version 2, not 1"),
        (lambda fields: fields | {"images": []}, "has no classes, no test images"),
        (lambda fields: fields | {"class_names": ["one"]}, "has more than its 1 classes"),
        (lambda fields: fields | {"bound": {"box_pixels": -1, "score": 0}}, "the bound box_pixels is -1"),
        (lambda fields: fields | {"detect": {"conf": 2}}, "conf is 2"),
        (lambda fields: fields | {"images": [{"png": "AAAA", "detections": []}]}, "test image 0 cannot be decoded"),
        (lambda fields: fields | {"images": [{"png": "?"}]}, "the field 'detections' is missing"),
    ],
)
def test_a_damaged_certificate_is_one_message(change, found):
    text = json.dumps(change(json.loads(_make(1).to_json())))
    with pytest.raises(
        UserError, match=f"^the certificate of x.onnx cannot be read .*{found}.*: export the file again"
    ):
        certificate.read(text, "x.onnx")


def _iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _greedy(boxes_A4, prob_AC, config):
    """Threshold and NMS as a loop: the anchors of an image that are kept, best score first."""
    score_A, label_A, kept = prob_AC.max(axis=1), prob_AC.argmax(axis=1), []
    for a in np.argsort(-score_A)[: config.num_candidates]:
        beside = [b for b in kept if label_A[b] == label_A[a] and _iou(boxes_A4[a], boxes_A4[b]) > config.iou]
        if score_A[a] >= config.conf and not beside:
            kept.append(a)
    return kept[: config.max_detections]


def test_boxes_and_scores_of_all_anchors_are_selected_as_by_a_loop():
    rng, config = np.random.default_rng(0), DetectConfig(conf=0.4, iou=0.3, max_detections=12, num_candidates=60)
    corner, size = rng.uniform(0, 40, (2, 84, 2)), rng.uniform(5, 40, (2, 84, 2))
    boxes_BA4 = np.concatenate([corner, corner + size], axis=2).astype(np.float32)
    prob_BAC = rng.uniform(0, 1, (2, 84, 3)).astype(np.float32)
    found = runtimes.select(boxes_BA4, prob_BAC, config)
    for row in range(2):
        kept, mask = _greedy(boxes_BA4[row], prob_BAC[row], config), found.mask[row]
        assert len(kept) == mask.sum() > 5
        np.testing.assert_array_equal(found.boxes[row][mask], boxes_BA4[row][kept])
        np.testing.assert_array_equal(found.scores[row][mask], prob_BAC[row][kept].max(axis=1))
        np.testing.assert_array_equal(found.labels[row][mask], prob_BAC[row][kept].argmax(axis=1))


def _fixed(images_BHW3):
    """One white box at each image's first rows, as `_run(number=1)` finds it."""
    num_images = images_BHW3.shape[0]
    box = jnp.broadcast_to(jnp.array([0.0, 0, 30, 20]), (num_images, 1, 4))
    scores = jnp.full((num_images, 1), 0.9)
    return Detections(box, scores, jnp.ones((num_images, 1), jnp.int32), jnp.ones((num_images, 1), bool))


@pytest.mark.parametrize("batch", [None, 2])
def test_a_stablehlo_file_carries_its_certificate_and_still_detects(tmp_path, batch):
    path = tmp_path / "toy.stablehlo.zip"
    program = stablehlo.export(_fixed, _NAMES, _SIZE, batch, platforms=("cpu",))
    program.write(path, _make(1).to_json())
    certified, run = runtimes.open_exported(path)
    assert certificate.compare(certified, run) == certificate.Difference(1, 0.0, 0.0, ())
    program.write(path)
    assert exported_file.read_certificate(path) is None
    with pytest.raises(UserError, match="zip has no certificate: export it again, without --nocertificate"):
        runtimes.open_exported(path)


def test_what_cannot_be_verified_is_one_message(tmp_path):
    for name, found in (
        ("a.txt", "is not an exported file that can be run: give one of .*onnx"),
        ("a.onnx", "no file"),
    ):
        with pytest.raises(UserError, match=found):
            runtimes.open_exported(tmp_path / name)
    with pytest.raises(UserError, match="gs://b/a.onnx is an address"):
        runtimes.open_exported("gs://b/a.onnx")
    (tmp_path / "a.onnx").write_text("no model")
    with pytest.raises(UserError, match="a.onnx cannot be opened by ONNX Runtime"):
        runtimes.open_exported(tmp_path / "a.onnx")


def test_a_file_that_was_written_is_compared_before_it_gets_its_place(monkeypatch):
    lines, runs = [], iter([_run(shift=0.01), _run(shift=1.0)])
    monkeypatch.setattr(runtimes, "open_exported", lambda path, on_cpu: (_make(2), next(runs)))
    runtimes.check("a.onnx", "mine", "why", lines.append)
    with pytest.raises(UserError, match="^mine would not find what its weights find, so it is not written: why"):
        runtimes.check("a.onnx", "mine", "why", lines.append)
    assert all(line.startswith("mine: 2 of 2 detections in 1 test images; largest difference") for line in lines)


def test_without_the_runtime_of_a_file_there_is_a_warning(monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "a.onnx").touch()
    runtimes.check(tmp_path / "a.onnx", "mine.onnx", "")
    (warning,) = caplog.messages
    assert warning.startswith("mine.onnx is not compared with its certificate: an ONNX file needs ONNX Runtime (")


@pytest.mark.slow
def test_the_program_verifies_what_it_exported_and_refuses_a_changed_file(tmp_path):
    """Random weights have low scores: without a threshold, all boxes that NMS leaves are compared."""
    save_pth(tmp_path / "nano.pth", golden_state_dict(golden_shapes("nano")))
    export = "-m yolox_jax.tools.export"
    for file, more in (
        ("a.onnx", ["--format=onnx"]),
        ("raw.onnx", ["--format=onnx", "--raw", "--batch=2"]),
    ):
        thresholds = [] if "raw" in file else ["--conf=0", "--max_detections=84"]
        arguments = ["--weights=nano.pth", f"--output={file}", "--size=64", *more, *thresholds]
        printed = programs.run(export, arguments, tmp_path, 0).stdout
        assert re.search(rf"^{file}: \d+ of \d+ detections in 3 test images; ", printed, re.MULTILINE)
        certified, run = runtimes.open_exported(tmp_path / file)
        assert certificate.compare(certified, run).is_within(certified.bound)
        assert certified.num_detections > 3 or "raw" in file
    model = onnx.load(tmp_path / "a.onnx")
    boxes = next(node for node in model.graph.node if node.name == "head.reg_preds.0")
    bias = next(each for each in model.graph.initializer if each.name == boxes.input[2])
    bias.raw_data = (onnx.numpy_helper.to_array(bias) + np.float32(0.1)).tobytes()  # strides: 0.8 pixels
    onnx.save(model, tmp_path / "changed.onnx")
    refused = programs.run(export, ["--verify=changed.onnx"], tmp_path, 1)
    assert "error: changed.onnx does not find what its weights find: " in refused.stderr
    assert "changed.onnx: " in refused.stdout and "(bound 0.05)" in refused.stdout


@pytest.mark.slow
def test_a_stablehlo_file_finds_in_photographs_what_its_run_finds_and_one_of_other_weights_does_not(tmp_path):
    loaded = pretrained.load(str(material("weights/yolox_nano_coco.pth")), "float32")
    photographs = map(images.read, sorted(material("data/coco_val100/images").glob("*.jpg"))[:4])
    detect, (ending, write) = DetectConfig(conf=0.3), FORMATS["stablehlo"]
    run = pretrained.make_detect(loaded, detect)
    certified = certificate.make(run, loaded.class_names, loaded.size_hw, detect, certificate.FLOAT32, photographs)
    assert certified.num_detections > 10
    differences = []
    for scale in (1.0, 1.01):
        scaled = dataclasses.replace(loaded, variables=jax.tree.map(lambda x, scale=scale: scale * x, loaded.variables))
        path = tmp_path / f"{scale}{ending}"
        write(path, scaled, ExportConfig(loaded.size_hw, 1, detect, certificate=certified))
        differences.append(certificate.compare(*runtimes.open_exported(path)))
    assert [each.is_within(certified.bound) for each in differences] == [True, False]
    assert differences[0].num_detections == certified.num_detections


def test_a_certificate_takes_another_bound():
    int8 = dataclasses.replace(_make(1), bound=Bound(8.0, 0.1))
    assert certificate.read(int8.to_json(), "file").bound == Bound(8.0, 0.1)
