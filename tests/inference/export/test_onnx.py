"""ONNX files in ONNX Runtime, compared with the reference's outputs, our detections and the official ONNX file."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from tests.material import golden, golden_shapes, golden_state_dict, material
from yolox_jax.augment.geometry import letterbox
from yolox_jax.data import images
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.detection.postprocess import detect
from yolox_jax.errors import UserError
from yolox_jax.inference import pretrained
from yolox_jax.inference.export import onnx_file
from yolox_jax.inference.export.onnx_detections import add_detections
from yolox_jax.inference.export.onnx_graph import Graph
from yolox_jax.inference.export.onnx_network import OnnxNetwork
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.models import yolox
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.types import Predictions
from yolox_jax.weights.official import from_state_dict, to_state_dict


def _session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "name",  # depthwise, smallest dense, deeper, Darknet53
    ["nano", "tiny", pytest.param("m", marks=pytest.mark.slow), pytest.param("darknet53", marks=pytest.mark.slow)],
)
def test_the_graph_of_each_kind_of_network_has_the_outputs_of_the_reference(name):
    arrays = golden("models")
    images_B3HW = arrays["images_nchw"].astype(np.float32)
    graph = Graph()
    model = yolox.create(name)
    variables = from_state_dict(golden_state_dict(golden_shapes(name)), model)
    network = OnnxNetwork(graph, to_state_dict(fold_batch_norm(model, variables), model))
    raw = network.raw_output(graph.input("images", np.float32, ["batch", *images_B3HW.shape[1:]]))
    graph.output("output", raw, np.float32, ["batch", *arrays[f"{name}/raw"].shape[1:]])
    session = _session(graph.model())
    (found,) = session.run(None, {"images": images_B3HW})
    np.testing.assert_allclose(found, arrays[f"{name}/raw"], rtol=0, atol=1e-4)
    (first,) = session.run(None, {"images": images_B3HW[:1]})
    np.testing.assert_allclose(first, found[:1], atol=1e-5)


_CONFIG = DetectConfig(conf=0.2, iou=0.4, max_detections=30, num_candidates=60)


@jax.jit
def _detect(predictions, anchors):
    return detect(predictions, anchors, _CONFIG.conf, _CONFIG.iou, 30, 60)


@pytest.fixture(scope="module")
def nms():
    """A session that runs only decoding and NMS, for a 64x96 input and 3 classes."""
    anchors = make_anchors((64, 96))
    graph = Graph()
    output = graph.input("output", np.float32, ["batch", len(anchors.strides), 8])
    found = add_detections(graph, output, anchors, 3, _CONFIG)
    outputs = (
        ("boxes", np.float32, [4]),
        ("scores", np.float32, []),
        ("labels", np.int32, []),
        ("mask", np.bool_, []),
    )
    for value, (name, dtype, last) in zip(found, outputs, strict=True):
        graph.output(name, value, dtype, ["batch", 30, *last])
    return _session(graph.model()), anchors


@pytest.mark.parametrize(("batch", "lift"), [(1, 0.0), (3, 1.0), (2, -20.0)])  # the last one has no detections
def test_decoding_and_nms_in_the_graph_give_the_detections_of_postprocess(nms, batch, lift):
    session, anchors = nms
    rng = np.random.default_rng(batch)
    deltas = rng.normal(0, 1, (3, len(anchors.strides), 4)).astype(np.float32)
    logits = rng.normal(lift, 2, (3, len(anchors.strides), 4)).astype(np.float32)
    predictions = Predictions(jnp.asarray(deltas), jnp.asarray(logits[..., 0]), jnp.asarray(logits[..., 1:]))
    # Always three images, so that only one program is compiled.
    expected = jax.tree.map(lambda x: np.asarray(x)[:batch], _detect(predictions, anchors))
    output = np.concatenate([deltas, jax.nn.sigmoid(logits)], axis=2)[:batch]
    boxes, scores, labels, mask = session.run(None, {"output": output})
    np.testing.assert_array_equal(mask, expected.mask)
    assert mask.any() == (lift > -20)
    np.testing.assert_allclose(boxes[mask], expected.boxes[mask], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(scores[mask], expected.scores[mask], atol=1e-6)
    np.testing.assert_array_equal(labels[mask], expected.labels[mask])


@pytest.fixture(scope="module")
def nano():
    return pretrained.load(str(material("weights/yolox_nano_coco.pth")))


@pytest.fixture(scope="module")
def photographs():
    """Four COCO images, letterboxed: [4, 416, 416, 3] uint8 BGR."""
    paths = sorted(material("data/coco_val100/images").glob("*.jpg"))[:4]
    return np.stack([letterbox(images.read(path), (416, 416))[0] for path in paths])


def test_the_raw_file_has_the_interface_and_outputs_of_the_official_one(nano, photographs):
    official = onnx.load(material("weights/yolox_nano_coco.onnx"))
    ours = onnx_file.raw_model(nano, (416, 416), batch=1)
    assert ours.opset_import[0].version >= 17
    for one, other in ((ours.graph.input, official.graph.input), (ours.graph.output, official.graph.output)):
        assert [node.name for node in one] == [node.name for node in other]
        assert [node.type for node in one] == [node.type for node in other]
    sessions = _session(ours), _session(official)
    for image in photographs:
        feed = {"images": image.transpose(2, 0, 1)[None].astype(np.float32)}
        (found,), (expected,) = (session.run(["output"], feed) for session in sessions)
        np.testing.assert_allclose(found[..., :4], expected[..., :4], rtol=0, atol=1e-3)
        np.testing.assert_allclose(found[..., 4:], expected[..., 4:], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_file_with_nms_gives_our_detections_on_photographs(nano, photographs):
    config = DetectConfig(conf=0.3, iou=0.65, max_detections=300, num_candidates=1000)
    session = _session(onnx_file.detecting_model(nano, (416, 416), None, config))
    names = [node.name for node in session.get_outputs()]
    assert names == ["boxes", "scores", "labels", "mask"]
    detect_nano = pretrained.make_detect(nano, config)
    together = session.run(None, {"images": photographs})
    num_found = 0
    for row, image in enumerate(photographs):
        ours = detect_nano(image[None])
        for boxes, scores, labels, mask in (
            (part[0] for part in session.run(None, {"images": image[None]})),
            (part[row] for part in together),
        ):
            np.testing.assert_array_equal(mask, ours.mask[0])
            np.testing.assert_allclose(boxes[mask], ours.boxes[0][mask], rtol=0, atol=0.05)
            np.testing.assert_allclose(scores[mask], ours.scores[0][mask], rtol=0, atol=1e-4)
            np.testing.assert_array_equal(labels[mask], ours.labels[0][mask])
        num_found += mask.sum()
    assert num_found > 20


def test_options_that_the_graph_does_not_support_are_refused():
    loaded = pretrained.Pretrained("nano", None, {}, ("a",), (64, 64))
    with pytest.raises(UserError, match="supports neither multi_label nor tta nor slices: .*stablehlo"):
        onnx_file.detecting_model(loaded, (64, 64), None, DetectConfig(tta=True))
