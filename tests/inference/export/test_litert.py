"""LiteRT files in Google's runtime, compared with the reference's outputs and with our network on photographs."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tests.material import golden, golden_shapes, golden_state_dict, material
from yolox_jax import boxes
from yolox_jax.augment.geometry import letterbox
from yolox_jax.data import images
from yolox_jax.detection.anchors import decode, make_anchors
from yolox_jax.errors import UserError
from yolox_jax.inference import export, pretrained
from yolox_jax.inference.export import certificate, litert_file, runtimes
from yolox_jax.inference.export.formats import FORMATS, ExportConfig
from yolox_jax.inference.export.litert_graph import Graph
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.inference.pretrained import Pretrained
from yolox_jax.models import yolox
from yolox_jax.weights.official import from_state_dict


def _with_golden_weights(name):
    model = yolox.create(name)
    variables = from_state_dict(golden_state_dict(golden_shapes(name)), model)
    return Pretrained(name, model, variables, tuple(f"class {label}" for label in range(80)), (64, 96))


def _runner(file, num_images=None):
    """Returns the file as a function of images to boxes and scores."""
    interpreter = Interpreter(model_content=file, num_threads=1)
    if num_images is not None:
        (images_in,) = interpreter.get_input_details()
        interpreter.resize_tensor_input(images_in["index"], [num_images, *images_in["shape"][1:]])
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()
    return lambda images_BHW3: [run(images=images_BHW3)[name] for name in ("boxes", "scores")]


@pytest.fixture(scope="module")
def nano():
    return _with_golden_weights("nano")


@pytest.fixture(scope="module")
def golden_images():
    return golden("models")["images_nchw"].transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def nano_file(nano, golden_images):
    return litert_file.detecting_model(nano, golden_images.shape[1:3], input_dtype="float32")


def _expected(name):
    """The decoded boxes and scores of the reference for the golden images."""
    raw = golden("models")[f"{name}/raw"]
    size_hw = golden("models")["images_nchw"].shape[2:]
    found = boxes.cxcywh_to_xyxy(decode(jnp.asarray(raw[..., :4]), make_anchors(size_hw)))
    return found, raw[..., 4:5] * raw[..., 5:]


def _assert_equal(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=2e-3)  # boxes, in pixels
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-5)


def test_a_file_gives_boxes_and_scores_of_the_reference_for_one_image_or_after_resizing_for_more(
    nano_file, golden_images
):
    boxes_BA4, scores_BAC = _expected("nano")
    _assert_equal(_runner(nano_file)(golden_images[:1]), (boxes_BA4[:1], scores_BAC[:1]))
    _assert_equal(_runner(nano_file, len(golden_images))(golden_images), (boxes_BA4, scores_BAC))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "darknet53"])
def test_the_graph_of_each_kind_of_network_has_the_outputs_of_the_reference(name, golden_images):
    size_hw, num_images = golden_images.shape[1:3], len(golden_images)
    file = litert_file.detecting_model(_with_golden_weights(name), size_hw, num_images, "float32")
    _assert_equal(_runner(file)(golden_images), _expected(name))


@pytest.mark.slow
def test_uint8_images_give_the_same_as_float32_ones(nano, nano_file, golden_images):
    file, whole_images = litert_file.detecting_model(nano, golden_images.shape[1:3]), golden_images[:1].round()
    of_float32, of_uint8 = _runner(nano_file)(whole_images), _runner(file)(whole_images.astype(np.uint8))
    np.testing.assert_array_equal(of_uint8[0], of_float32[0])
    np.testing.assert_array_equal(of_uint8[1], of_float32[1])


def test_the_file_names_its_input_outputs_and_classes(nano_file, golden_images):
    interpreter = Interpreter(model_content=nano_file)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["boxes", "scores"]}
    }
    (given,) = interpreter.get_input_details()
    assert (given["dtype"], given["shape"].tolist()) == (np.float32, [1, *golden_images.shape[1:]])
    model = schema.ModelT.InitFromPackedBuf(nano_file)
    assert model.description == b"yolox_jax"
    assert json.loads(litert_file.read_metadata(nano_file)["class_names"])[79] == "class 79"


def test_focus_is_one_convolution_of_6x6_pixels_with_stride_2(nano_file):
    graph = schema.ModelT.InitFromPackedBuf(nano_file).subgraphs[0]
    first = next(each for each in graph.operators if isinstance(each.builtinOptions, schema.Conv2DOptionsT))
    assert graph.tensors[first.inputs[1]].shape.tolist() == [16, 6, 6, 3]
    assert (first.builtinOptions.strideH, first.builtinOptions.strideW) == (2, 2)


def test_tensors_have_names_of_their_own(nano_file):  # quantizers know them by it
    names = [each.name for each in schema.ModelT.InitFromPackedBuf(nano_file).subgraphs[0].tensors]
    assert len(names) == len(set(names))


def test_constants_are_aligned_in_the_file():
    graph = Graph()
    for size in (1, 3, 17):
        graph.constant(np.ones(size, np.float32))
    model = schema.Model.GetRootAs(file := graph.model({}, {"key": "odd"}))
    starts = [model.Buffers(i).DataAsNumpy() for i in range(1, model.BuffersLength())]
    offsets = [each.__array_interface__["data"][0] - _address(file) for each in starts]
    assert len(offsets) == 4 and all(offset % 16 == 0 for offset in offsets)


def _address(file):
    return np.frombuffer(file, np.uint8).__array_interface__["data"][0]


def _raise_score(path, array):
    """Lets random weights give scores of all sizes."""
    names = [key.key for key in path]
    return array + 4 if names[-1] == "bias" and names[2] in ("obj_preds", "cls_preds") else array


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nano", "s"])
def test_a_file_gives_our_boxes_and_scores_on_photographs(name):
    size_hw = (416, 416)
    if name == "nano":
        loaded = pretrained.load(str(material("weights/yolox_nano_coco.pth")), "float32")
    else:
        loaded = _with_golden_weights("s")
        raised = jax.tree_util.tree_map_with_path(_raise_score, loaded.variables)
        loaded = dataclasses.replace(loaded, variables=raised)
    paths = sorted(material("data/coco_val100/images").glob("*.jpg"))[:3]
    photographs = np.stack([letterbox(images.read(path), size_hw)[0] for path in paths])

    @jax.jit
    def ours(images_BHW3):
        found = loaded.model.apply(loaded.variables, images_BHW3.astype(jnp.float32), train=False)
        boxes_BA4 = boxes.cxcywh_to_xyxy(decode(found.box_deltas, make_anchors(size_hw)))
        return boxes_BA4, jax.nn.sigmoid(found.obj_logits)[..., None] * jax.nn.sigmoid(found.cls_logits)

    run = _runner(litert_file.detecting_model(loaded, size_hw))
    for image in photographs:
        found, expected = run(image[None]), ours(image[None])
        np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=0.05)
        np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-4)
        assert float(expected[1].max()) > 0.05


@pytest.mark.slow
def test_a_file_is_verified_by_its_certificate_and_one_with_other_weights_is_refused(nano, tmp_path):
    """Random weights have low scores: without a threshold, all boxes that NMS leaves are compared."""
    detect, path = DetectConfig(conf=0, iou=0.5), tmp_path / "nano.tflite"
    certified = certificate.make(
        pretrained.make_detect(nano, detect), nano.class_names, (64, 64), detect, certificate.FLOAT32
    )
    other = jax.tree.map(lambda array: 1.1 * array, nano.variables)
    for loaded, is_right in ((nano, True), (dataclasses.replace(nano, variables=other), False)):
        FORMATS["litert"][1](path, loaded, ExportConfig((64, 64), 2, None, certificate=certified))
        found = certificate.compare(*runtimes.open_exported(path))
        assert found.is_within(certified.bound) == is_right
    assert found.num_detections > 3


def test_without_the_package_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "litert_file", None, raising=False)  # the package's attribute comes before sys.modules
    monkeypatch.delattr(export, "litert_file")
    monkeypatch.setitem(sys.modules, "yolox_jax.inference.export.litert_file", None)
    loaded = Pretrained("nano", None, {}, ("a",), (64, 64))
    with pytest.raises(UserError, match="--format=litert needs the package ai-edge-litert .*: pip install 'ai-edge"):
        FORMATS["litert"][1](tmp_path / "nano.tflite", loaded, ExportConfig((64, 64), None, None))
