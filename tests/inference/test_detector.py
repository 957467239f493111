"""Detector: its inputs, its boxes in the pixels of each image, and its two programs; loading of pretrained weights."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.inference.white_pixels import CLASS_NAMES, WhitePixels, white_box
from tests.material import MODELS, golden_shapes, material, nano_of_seven_classes
from tests.training import toy
from yolox_jax import Detector
from yolox_jax.augment.geometry import letterbox
from yolox_jax.data import images
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.inference import pretrained
from yolox_jax.inference.inputs import as_bgr
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.training import optim, state
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.compilation import CompileCounter
from yolox_jax.types import Detections
from yolox_jax.weights import official
from yolox_jax.weights.coco_names import COCO_NAMES
from yolox_jax.weights.torch_writer import save_pth

_SIZE = (64, 96)
_SEVEN = tuple("abcdefg")


def _detector(predict, **options):
    return Detector(predict, CLASS_NAMES, _SIZE, log=lambda text: None, **options)


@pytest.mark.parametrize("height, width", [(64, 96), (32, 48), (200, 100), (128, 600)])
def test_boxes_are_in_the_pixels_of_the_image(height, width):
    box_xyxy = np.array([width // 4, height // 4, width // 2, height // 2])
    found = _detector(WhitePixels())(white_box(height, width, box_xyxy))
    assert found.names == ["white"]
    pixel = max(height / _SIZE[0], width / _SIZE[1], 1)  # one input pixel, in pixels of the image
    np.testing.assert_allclose(found.boxes_xyxy, box_xyxy[None], atol=1.5 * pixel)


def test_array_pil_image_and_file_of_a_picture_give_the_network_the_same_pixels(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    seen = []

    def predict(images_BHW3):
        seen.append(images_BHW3.copy())
        return Detections(*(np.zeros(shape) for shape in ((1, 0, 4), (1, 0), (1, 0))), np.zeros((1, 0), bool))

    Image.fromarray(rgb).save(tmp_path / "picture.png")
    for given in (rgb, Image.fromarray(rgb), tmp_path / "picture.png", str(tmp_path / "picture.png")):
        assert len(_detector(predict)(given)) == 0
    np.testing.assert_array_equal(seen[0][0], letterbox(rgb[..., ::-1].copy(), _SIZE)[0])  # BGR, as in training
    for other in seen[1:]:
        np.testing.assert_array_equal(other, seen[0])


@pytest.mark.parametrize(("name", "dtype"), [("deep.png", "<u2"), ("deep.pgm", "<u2"), ("deep.tif", ">u2")])
def test_a_16_bit_pil_image_gives_the_pixels_of_its_file(tmp_path, name, dtype):
    gray = np.random.default_rng(0).integers(0, 2**16, (40, 50)).astype(dtype)
    Image.fromarray(gray).save(tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        np.testing.assert_array_equal(as_bgr(picture), as_bgr(tmp_path / name))


@pytest.mark.parametrize("format", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_with_exif_orientation_gives_the_pixels_of_its_file(tmp_path, orientation, format):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "webp" else {}
    Image.fromarray(rgb).save(tmp_path / f"turned.{format}", exif=exif, **options)
    with Image.open(tmp_path / f"turned.{format}") as picture:
        np.testing.assert_array_equal(as_bgr(picture), as_bgr(tmp_path / f"turned.{format}"))


def test_a_list_is_detected_in_batches_of_a_fixed_size_and_each_compilation_is_logged_once():
    predict, logged = WhitePixels(), []
    detector = Detector(predict, CLASS_NAMES, _SIZE, batch_sizes=(1, 4), log=logged.append)
    pictures = [white_box(40 + i, 50 + 2 * i, (3 * i, i, 3 * i + 9, i + 8)) for i in range(10)]
    alone = [detector(picture) for picture in pictures]
    together = detector(pictures)
    assert predict.batch_sizes == [1] * 10 + [4, 4, 4]
    assert [text.split(" at ")[0] for text in logged] == [
        "compiling for one image",
        "compiling for batches of 4 images",
    ]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
    assert detector([]) == []


def test_boxes_are_clipped_to_the_image_and_boxes_in_the_padding_are_dropped():
    # In input pixels, where the image covers x = 0 to 60 and the full height.
    boxes = np.array([[[-5.0, 10, 20, 40], [70, 10, 90, 30]]])

    def predict(images_BHW3):
        return Detections(boxes, np.ones((1, 2)), np.zeros((1, 2), int), np.ones((1, 2), bool))

    found = _detector(predict)(np.zeros((128, 120, 3), np.uint8))
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 20, 40, 80]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\): give an RGB array of shape \[height, width, 3\]"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((4, 4, 3)), "dtype float64: give uint8 values from 0 to 255"),
        (np.zeros((2, 4, 4, 3), np.uint8), "give several images as a list"),
        (7, "an object of type int is not an image"),
        (Image.new("F", (4, 4)), "mode F, whose range is unknown: scale it to 0..255"),
        (Image.new("I", (4, 4), -1), r"mode I has values outside 0\.\.65535"),
        (Image.new("I", (4, 4), 1 << 16), r"mode I has values outside 0\.\.65535"),
        ("absent.jpg", "absent.jpg cannot be read"),
        ("gs://b/a.jpg", "gs://b/a.jpg is an address, and this takes files of this machine: copy it here first"),
    ],
)
def test_anything_that_is_not_an_image_is_refused_with_a_reason(given, message):
    with pytest.raises(UserError, match=message):
        _detector(WhitePixels())(given)


def test_a_drawing_has_the_size_of_the_image_and_does_not_change_it():
    image = white_box(64, 96, (10, 20, 30, 50))
    found = _detector(WhitePixels())(image)
    drawn = found.draw(image)
    assert drawn.shape == image.shape
    changed = (drawn != image).any(axis=2)
    assert changed[35, 10] and changed[35, 30] and not changed[35, 20]
    assert found.draw_bgr(image)[35, 10].tolist() == drawn[35, 10].tolist()[::-1]
    assert str(found) == "1 white"
    assert found.as_dicts()[0]["name"] == "white"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with one checkpoint of an untrained nano."""
    workdir = tmp_path_factory.mktemp("run")
    variables = jax.tree.map(np.asarray, nano_of_seven_classes()[1])  # of jax, each shape would be compiled below
    checkpoints = Checkpoints(workdir)
    meta = toy.meta(3, class_names=_SEVEN, config={"input_size": [64, 96], "optimizer": "sgd"})
    checkpoints.save(state.create(variables, optim.sgd(0.9, 0.0)), meta)
    checkpoints.close()
    return workdir


def test_a_run_states_its_class_names_and_input_size_and_new_image_sizes_compile_nothing(run):
    detector = Detector.from_pretrained(run, conf=0.0, max_detections=5, batch_size=2, log=lambda text: None)
    assert (detector.class_names, detector.size_hw) == (_SEVEN, (64, 96))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((64, 96), (50, 20), (99, 300))]
    detector(pictures), detector(pictures[0])  # compiles both programs

    counter = CompileCounter()
    one, all_three = detector(pictures[2]), detector(pictures)
    assert counter.num_programs == 0
    assert len(one) > 0
    np.testing.assert_allclose(one.boxes_xyxy, all_three[2].boxes_xyxy, atol=1e-2)


@pytest.fixture(scope="module")
def compiled(run):
    """A detector whose two programs, for one image and for two, are compiled."""
    detector = Detector.from_pretrained(run, conf=0.0, max_detections=5, batch_size=2, log=lambda text: None)
    detector(2 * [np.zeros((64, 96, 3), np.uint8)]), detector(np.zeros((64, 96, 3), np.uint8))
    return detector


@pytest.mark.slow
def test_a_detector_in_eight_threads_compiles_no_more_and_gives_what_one_thread_gives(compiled):
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 200, (40, 2)).tolist()
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    inputs = [*pictures, *(pictures[start : start + 3] for start in range(0, 40, 3))]

    def detect(given):
        found = compiled(given)
        return [(each.boxes_xyxy.tolist(), each.scores.tolist(), each.names) for each in np.atleast_1d(found)]

    alone, counter = [detect(each) for each in inputs], CompileCounter()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(detect, inputs)) == alone
    assert counter.num_programs == 0


@pytest.mark.slow
def test_300_images_of_varied_sizes_leave_no_memory_behind(compiled):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2000, 2000, 3), np.uint8)
    after = []
    for height, width in rng.integers(20, 2001, (300, 2)).tolist():
        compiled(pixels[:height, :width])
        after.append(_memory_mb())
    assert after[-1] - after[30] < 64  # the images have 900 MB


def _memory_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_network_and_input_size_are_logged_and_that_of_training_if_it_differs(run, monkeypatch):
    monkeypatch.setattr(pretrained, "make_detect", lambda loaded, config: None)
    logged = []
    Detector.from_pretrained(run, log=logged.append)
    Detector.from_pretrained(run, size=96, log=logged.append)
    assert logged == ["YOLOX-nano at 64x96", "YOLOX-nano at 96x96 (trained at 64x96)"]


def test_options_reach_the_detect_config(run, monkeypatch):
    configs = []
    monkeypatch.setattr(pretrained, "make_detect", lambda loaded, config: configs.append(config))
    options = {"conf": 0.5, "iou": 0.6, "max_detections": 70, "multi_label": True, "tta": True}
    options |= {"slices": "2x3", "overlap": 0.1}
    Detector.from_pretrained(run, **options)
    Detector.from_pretrained(run)
    assert configs == [DetectConfig(**options, num_candidates=1000), pretrained.DETECTOR_CONFIG]


@pytest.mark.slow
def test_max_detections_may_exceed_the_default_number_of_candidates(run):
    """With conf 0 and iou 1 every anchor is a detection: 1344 of them at 256x256."""
    detector = Detector.from_pretrained(run, size=256, conf=0.0, iou=1.0, max_detections=1200, log=lambda text: None)
    assert len(detector(np.zeros((256, 256, 3), np.uint8))) == 1200


@pytest.mark.slow
def test_one_number_as_size_is_height_and_width(run):
    assert Detector.from_pretrained(run, size=96).size_hw == (96, 96)
    assert Detector.from_pretrained(run, size=(96, 32)).size_hw == (96, 32)
    for size in (0, 100, (96, 100)):
        with pytest.raises(UserError, match="multiples of 32"):
            Detector.from_pretrained(run, size=size)


@pytest.mark.parametrize("name", MODELS)
def test_the_variant_is_inferred_from_the_tensors(name):
    shapes = golden_shapes(name)
    assert official.variant_of({key: np.empty(shape, np.int8) for key, shape in shapes.items()}) == name


def test_weights_of_an_unknown_network_are_refused():
    with pytest.raises(UserError, match="YOLOX: there is neither a tensor backbone"):
        official.variant_of({"conv1.weight": np.zeros((64, 3, 7, 7))})
    with pytest.raises(UserError, match="first layer has 20 channels; known.* nano 16, tiny 24, s 32"):
        official.variant_of({"backbone.backbone.stem.conv.conv.weight": np.zeros((20, 12, 3, 3))})


def test_an_error_in_an_official_file_names_the_file(tmp_path, monkeypatch):
    def refuse(state_dict):
        raise UserError("the weights are unknown", "give others")

    save_pth(tmp_path / "strange.pth", {"conv1.weight": np.zeros((2, 3, 1, 1), np.float32)})
    monkeypatch.setattr(official, "variant_of", refuse)
    with pytest.raises(UserError, match="strange.pth: the weights are unknown: give others"):
        pretrained.load(str(tmp_path / "strange.pth"))


def test_options_out_of_range_are_refused(run):
    with pytest.raises(UserError, match="^conf is 2: give a score threshold from 0 to 1"):
        Detector.from_pretrained(run, conf=2)
    with pytest.raises(UserError, match="^batch_size is 0: give 1 or more"):
        Detector.from_pretrained(run, batch_size=0)


def test_missing_or_unusable_weights_are_named(tmp_path):
    with pytest.raises(NotFoundError, match="absent.pth"):
        Detector.from_pretrained(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="yolox_huge"):
        Detector.from_pretrained("yolox_huge")
    for name, runtime in (("any.onnx", "ONNX Runtime"), ("any.tflite", "LiteRT")):
        with pytest.raises(UserError, match=f"{name} is a file for {runtime}: .*--format=stablehlo"):
            Detector.from_pretrained(name)
    with pytest.raises(UserError, match="folder without checkpoints"):
        Detector.from_pretrained(tmp_path)


def test_an_unknown_dtype_is_named(run):
    with pytest.raises(UserError, match="^dtype is 'half': choose one of auto, float32, bfloat16, float16"):
        Detector.from_pretrained(run, dtype="half")


def test_an_official_file_has_the_class_names_and_input_size_of_coco():
    loaded = pretrained.load(str(material("weights/yolox_nano_coco.pth")))
    assert (loaded.name, loaded.size_hw, loaded.class_names) == ("nano", (416, 416), COCO_NAMES)


def test_the_coco_names_are_in_the_order_of_the_annotation_file():
    content = json.loads(material("data/coco_val100/annotations.json").read_text())
    assert tuple(category["name"] for category in content["categories"]) == COCO_NAMES


@pytest.mark.slow
def test_the_official_nano_finds_what_the_reference_finds_in_photographs():
    """Exactly the objects that the PyTorch implementation scores above 0.3."""
    folder = material("data/coco_val100")
    content = json.loads((folder / "annotations.json").read_text())
    label_of = {category["id"]: label for label, category in enumerate(content["categories"])}
    detections = json.loads((folder / "reference_detections_nano.json").read_text())
    detector = Detector.from_pretrained(
        material("weights/yolox_nano_coco.pth"), conf=0.3, iou=0.65, log=lambda text: None
    )
    for info in content["images"][:6]:
        image = images.read(folder / "images" / info["file_name"])
        expected = [d for d in detections if d["image_id"] == info["id"] and d["score"] >= 0.3]
        expected.sort(key=lambda d: -d["score"])
        found = detector.detect_bgr([image])[0]
        xywh = np.array([d["bbox"] for d in expected]).reshape(-1, 4)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        size = (info["width"], info["height"]) * 2
        np.testing.assert_array_equal(found.labels, [label_of[d["category_id"]] for d in expected])
        np.testing.assert_allclose(found.scores, [d["score"] for d in expected], atol=1e-3)
        np.testing.assert_allclose(found.boxes_xyxy, np.clip(xyxy, 0, size), atol=0.1)
