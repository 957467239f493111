"""The detector: what it takes, where its boxes are, and that it compiles no more than it says."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.inference.white_pixels import CLASS_NAMES, WhitePixels, white_box
from tests.material import golden_shapes, material, nano_of_seven_classes
from yolox_jax import Detector
from yolox_jax.augment.geometry import letterbox
from yolox_jax.data import images
from yolox_jax.inference import pretrained
from yolox_jax.inference.coco_names import COCO_NAMES
from yolox_jax.inference.inputs import as_bgr
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.models.yolox import VARIANTS
from yolox_jax.training import optim, state
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.compilation import CompileCounter
from yolox_jax.types import Detections
from yolox_jax.weights import checkpoint, official

_SIZE = (64, 96)
_SEVEN = tuple("abcdefg")


def _detector(predict, **options):
    return Detector(predict, CLASS_NAMES, _SIZE, log=lambda text: None, **options)


@pytest.mark.parametrize("height, width", [(64, 96), (32, 48), (200, 100), (128, 600)])
def test_boxes_are_in_the_images_own_pixels(height, width):
    box_xyxy = np.array([width // 4, height // 4, width // 2, height // 2])
    found = _detector(WhitePixels())(white_box(height, width, box_xyxy))
    assert found.names == ["white"]
    pixel = max(height / _SIZE[0], width / _SIZE[1], 1)  # of the input, in those of the image
    np.testing.assert_allclose(found.boxes_xyxy, box_xyxy[None], atol=1.5 * pixel)


def test_arrays_pil_images_and_files_of_one_picture_give_the_same(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    seen = []

    def predict(images_BHW3):
        seen.append(images_BHW3.copy())
        return Detections(*(np.zeros(shape) for shape in ((1, 0, 4), (1, 0), (1, 0))), np.zeros((1, 0), bool))

    Image.fromarray(rgb).save(tmp_path / "picture.png")
    for given in (rgb, Image.fromarray(rgb), tmp_path / "picture.png", str(tmp_path / "picture.png")):
        assert len(_detector(predict)(given)) == 0
    np.testing.assert_array_equal(seen[0][0], letterbox(rgb[..., ::-1].copy(), _SIZE)[0])  # BGR, as the network learnt
    for other in seen[1:]:
        np.testing.assert_array_equal(other, seen[0])


@pytest.mark.parametrize(("name", "dtype"), [("deep.png", "<u2"), ("deep.pgm", "<u2"), ("deep.tif", ">u2")])
def test_a_pil_image_of_16_bits_is_scaled_as_its_file_is(tmp_path, name, dtype):
    grey = np.random.default_rng(0).integers(0, 2**16, (40, 50)).astype(dtype)
    Image.fromarray(grey).save(tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        np.testing.assert_array_equal(as_bgr(picture), as_bgr(tmp_path / name))


@pytest.mark.parametrize("format", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_is_turned_as_its_file_is(tmp_path, orientation, format):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "webp" else {}
    Image.fromarray(rgb).save(tmp_path / f"turned.{format}", exif=exif, **options)
    with Image.open(tmp_path / f"turned.{format}") as picture:
        np.testing.assert_array_equal(as_bgr(picture), as_bgr(tmp_path / f"turned.{format}"))


def test_a_list_is_detected_in_batches_of_fixed_sizes_and_each_is_announced_once():
    predict, said = WhitePixels(), []
    detector = Detector(predict, CLASS_NAMES, _SIZE, batch_sizes=(1, 4), log=said.append)
    pictures = [white_box(40 + i, 50 + 2 * i, (3 * i, i, 3 * i + 9, i + 8)) for i in range(10)]
    alone = [detector(picture) for picture in pictures]
    together = detector(pictures)
    assert predict.batch_sizes == [1] * 10 + [4, 4, 4]
    assert [text.split(" at ")[0] for text in said] == ["compiling for one image", "compiling for batches of 4 images"]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
    assert detector([]) == []


def test_boxes_are_clipped_to_the_image_and_those_in_the_padding_left_out():
    boxes = np.array([[[-5.0, 10, 20, 40], [70, 10, 90, 30]]])  # the image is as high as the input, and 60 wide there

    def predict(images_BHW3):
        return Detections(boxes, np.ones((1, 2)), np.zeros((1, 2), int), np.ones((1, 2), bool))

    found = _detector(predict)(np.zeros((128, 120, 3), np.uint8))
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 20, 40, 80]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\): expected \[height, width, 3\]"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((4, 4, 3)), "type float64: expected uint8, 0 to 255"),
        (np.zeros((2, 4, 4, 3), np.uint8), "give them as a list"),
        (7, "a int is no image"),
        (Image.new("F", (4, 4)), "mode F has no known range: scale it to 0..255"),
        (Image.new("I", (4, 4), -1), r"mode I has numbers outside 0\.\.65535"),
        (Image.new("I", (4, 4), 1 << 16), r"mode I has numbers outside 0\.\.65535"),
        ("absent.jpg", "absent.jpg cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(given, message):
    with pytest.raises(ValueError, match=message):
        _detector(WhitePixels())(given)


def test_a_drawing_has_the_images_size_and_leaves_it_alone():
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
    """A run directory with one checkpoint."""
    workdir = tmp_path_factory.mktemp("run")
    _, variables = nano_of_seven_classes()
    checkpoints = Checkpoints(workdir)
    config = {"input_size": [64, 96]}
    checkpoints.save(state.create(variables, optim.sgd(0.9, 0.0)), checkpoint.Meta("nano", _SEVEN, 3, config, {}))
    checkpoints.close()
    return workdir


def test_a_runs_classes_and_size_are_its_own_and_new_image_sizes_compile_nothing(run):
    detector = Detector.from_pretrained(run, conf=0.0, max_detections=5, batch_size=2, log=lambda text: None)
    assert (detector.class_names, detector.size_hw) == (_SEVEN, (64, 96))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((64, 96), (50, 20), (99, 300))]
    detector(pictures), detector(pictures[0])  # both programs

    counter = CompileCounter()
    one, all_three = detector(pictures[2]), detector(pictures)
    assert counter.num_programs == 0
    assert len(one) > 0
    np.testing.assert_allclose(one.boxes_xyxy, all_three[2].boxes_xyxy, atol=1e-2)


def test_what_is_asked_for_reaches_the_program(run, monkeypatch):
    configs = []
    monkeypatch.setattr(pretrained, "make_predict", lambda loaded, config: configs.append(config))
    asked = {"conf": 0.5, "iou": 0.6, "max_detections": 70, "multi_label": True, "tta": True}
    Detector.from_pretrained(run, **asked)
    Detector.from_pretrained(run)
    assert configs == [DetectConfig(**asked, num_candidates=1000), pretrained.DETECTOR_CONFIG]


def test_as_many_objects_as_asked_for_are_found(run):
    """Also more than NMS is given by default: each anchor's, where any score and any overlap will do."""
    detector = Detector.from_pretrained(run, size=256, conf=0.0, iou=1.0, max_detections=1200, log=lambda text: None)
    assert len(detector(np.zeros((256, 256, 3), np.uint8))) == 1200


def test_one_number_is_height_and_width(run):
    assert Detector.from_pretrained(run, size=96).size_hw == (96, 96)
    assert Detector.from_pretrained(run, size=(96, 32)).size_hw == (96, 32)
    for size in (0, 100, (96, 100)):
        with pytest.raises(ValueError, match="multiples of 32"):
            Detector.from_pretrained(run, size=size)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_network_is_told_from_its_tensors(name):
    shapes = golden_shapes(name)
    assert official.variant_of({key: np.empty(shape, np.int8) for key, shape in shapes.items()}) == name


def test_weights_of_no_network_of_the_family_are_refused():
    with pytest.raises(ValueError, match="not the weights of a YOLOX: there is neither a tensor backbone"):
        official.variant_of({"conv1.weight": np.zeros((64, 3, 7, 7))})
    with pytest.raises(ValueError, match="first layer has 20 channels; known: nano 16, tiny 24, s 32"):
        official.variant_of({"backbone.backbone.stem.conv.conv.weight": np.zeros((20, 12, 3, 3))})


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        Detector.from_pretrained(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="yolox_huge"):
        Detector.from_pretrained("yolox_huge")
    with pytest.raises(ValueError, match=r"any\.onnx is for ONNX Runtime"):
        Detector.from_pretrained("any.onnx")
    with pytest.raises(ValueError, match="folder without checkpoints"):
        Detector.from_pretrained(tmp_path)


def test_an_unknown_dtype_is_named_as_the_caller_gave_it(run):
    with pytest.raises(ValueError, match="^dtype is 'float16': choose one of auto, float32, bfloat16"):
        Detector.from_pretrained(run, dtype="float16")


def test_an_official_files_classes_are_cocos():
    loaded = pretrained.load(str(material("weights/yolox_nano_coco.pth")))
    assert (loaded.name, loaded.size_hw, loaded.class_names) == ("nano", (416, 416), COCO_NAMES)


def test_the_coco_names_are_those_of_the_annotations():
    content = json.loads(material("data/coco_val100/annotations.json").read_text())
    assert tuple(category["name"] for category in content["categories"]) == COCO_NAMES


@pytest.mark.slow
def test_the_official_nano_finds_in_photographs_what_the_reference_found():
    """Every object that PyTorch scored above 0.3, at its place, and no other."""
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
