"""The networks against the reference's: parameters, raw outputs, input sizes."""

import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from tests.material import GOLDEN, MODELS, golden, golden_shapes, golden_state_dict, material
from yolox_jax import compiler_options
from yolox_jax.augment.geometry import letterbox
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.errors import UserError
from yolox_jax.models import yolox
from yolox_jax.training import state
from yolox_jax.types import Predictions
from yolox_jax.weights import official


def _abstract(model: yolox.YOLOX, height: int = 64, width: int = 64):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, height, width, 3))))


def _reference_layout(predictions: Predictions) -> np.ndarray:
    """[B, A, 4 + 1 + C] as the reference gives it: sigmoid on obj and cls, not decoded."""
    return np.concatenate(
        [
            predictions.box_deltas,
            jax.nn.sigmoid(predictions.obj_logits)[..., None],
            jax.nn.sigmoid(predictions.cls_logits),
        ],
        axis=-1,
    )


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts_are_the_references(name):
    expected = json.loads((GOLDEN / "models.json").read_text())[name]["params"]
    params = _abstract(yolox.create(name, 80))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize("cpu_kernels", ["xla", pytest.param("onednn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "nano" else pytest.mark.slow) for n in MODELS])
def test_raw_outputs_equal_the_references(name, cpu_kernels):
    """A jaxlib without oneDNN computes the forms for it by XLA."""
    arrays = golden("models")
    model = yolox.create(name, 80, cpu_kernels=cpu_kernels)
    variables = official.from_state_dict(golden_state_dict(golden_shapes(name)), model)
    images = jnp.asarray(arrays["images_nchw"].transpose(0, 2, 3, 1))
    with compiler_options.uncached(cpu_kernels):
        apply = jax.jit(model.apply, compiler_options=compiler_options.for_cpu_kernels(cpu_kernels))
        raw = _reference_layout(apply(variables, images))
    tolerance = 1e-4 if name == "darknet53" else 1e-5
    np.testing.assert_allclose(raw, arrays[f"{name}/raw"], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("height", "width"), [(96, 64), pytest.param(224, 416, marks=pytest.mark.slow)])
def test_any_multiple_of_32_gives_one_prediction_per_anchor_point(height, width):
    model = yolox.create("nano", 3)
    variables = _abstract(model)
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    predictions = jax.eval_shape(model.apply, variables, images)
    num_anchors = len(make_anchors((height, width)).strides)
    assert predictions.box_deltas.shape == (2, num_anchors, 4)
    assert predictions.obj_logits.shape == (2, num_anchors)
    assert predictions.cls_logits.shape == (2, num_anchors, 3)


@pytest.mark.parametrize(("height", "width"), [(100, 64), (64, 33)])
def test_another_size_is_refused_with_the_size(height, width):
    with pytest.raises(ValueError, match=f"{height}x{width}.*multiples of 32"):
        jax.eval_shape(yolox.create("nano").init, jax.random.key(0), jnp.zeros((1, height, width, 3)))


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="'yolox_s': choose one of nano, tiny, s, m, l, x, darknet53"):
        yolox.create("yolox_s")


def test_a_model_without_classes_is_refused():
    with pytest.raises(UserError, match="num_classes is 0: give at least 1"):
        yolox.create("nano", 0)


def test_an_unknown_dtype_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="dtype is 'half': choose one of auto, float32, bfloat16, float16"):
        yolox.compute_dtype("half")


def test_auto_is_the_native_dtype_and_every_other_name_is_its_own():
    assert yolox.compute_dtype("auto") == jnp.float32  # on a CPU
    assert yolox.compute_dtype("auto", jnp.dtype(jnp.float16)) == jnp.float16
    for name in yolox.DTYPES[1:]:
        assert yolox.compute_dtype(name, jnp.dtype(jnp.float16)).name == name


def test_scores_start_near_one_hundredth_and_all_variables_are_drawn_on_the_host():
    variables = state.init_variables(yolox.create("nano", 2), seed=0)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))
    for layers in (variables["params"]["head"]["cls_preds"], variables["params"]["head"]["obj_preds"]):
        for layer in layers.values():
            np.testing.assert_allclose(jax.nn.sigmoid(layer["bias"]), 0.01, rtol=1e-5)


@pytest.mark.slow
def test_sixteen_bits_compute_near_float32_and_keep_parameters_statistics_and_outputs_in_float32():
    images = jnp.asarray(golden("models")["images_nchw"].transpose(0, 2, 3, 1))
    state_dict = golden_state_dict(golden_shapes("nano"))
    answers = {}
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        model = yolox.create("nano", 80, dtype)
        variables = official.from_state_dict(state_dict, model)
        trained = jax.eval_shape(lambda v, m=model: m.apply(v, images, train=True, mutable=["batch_stats"]), variables)
        answers[dtype] = jax.jit(model.apply)(variables, images).obj_logits
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, trained, answers[dtype])))
    errors = {dtype: np.abs(answers[jnp.float32] - answers[dtype]).mean() for dtype in (jnp.bfloat16, jnp.float16)}
    assert 0 < errors[jnp.bfloat16] < 0.02  # of logits that spread by about 0.2
    assert 0 < errors[jnp.float16] < 0.02 / 8  # it has three more bits


@pytest.mark.slow
@pytest.mark.parametrize("file", ["yolox_nano_coco.pth", "yolox_nano_coco_fused.pth"])
def test_real_weights_reproduce_the_onnx_files_outputs_on_photographs(file):
    session = onnxruntime.InferenceSession(str(material("weights/yolox_nano_coco.onnx")))
    model = yolox.create("nano", 80)
    variables = official.from_state_dict(official.load_pth(material(f"weights/{file}")), model)
    photographs = sorted(material("data/coco_val100/images").glob("*.jpg"))[:3]
    images = np.stack([letterbox(cv2.imread(str(path)), (416, 416))[0] for path in photographs]).astype(np.float32)
    ours = _reference_layout(jax.jit(model.apply)(variables, images))
    (name,) = [node.name for node in session.get_inputs()]
    for image, raw in zip(images, ours, strict=True):
        theirs = session.run(None, {name: image.transpose(2, 0, 1)[None]})[0][0]
        np.testing.assert_allclose(raw[:, :4], theirs[:, :4], rtol=0, atol=1e-3)
        np.testing.assert_allclose(raw[:, 4:], theirs[:, 4:], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "size", "gflop"), [("nano", 416, 1.08), ("s", 640, 26.8), ("darknet53", 640, 185.3)])
def test_flops_are_the_official_ones_within_three_percent(name, size, gflop):
    """The figures are from the official README, whose counter adds small operations."""
    model = yolox.create(name, 80, space_to_depth=False)
    assert yolox.count_flops(model, (size, size)) / 1e9 == pytest.approx(gflop, rel=0.03)
