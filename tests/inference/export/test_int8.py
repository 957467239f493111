"""INT8 files: the plan against plain numbers, and both formats in their runtimes against the float network."""

import dataclasses
import importlib
import re
import sys

import numpy as np
import onnx
import pytest

from tests import programs
from tests.material import golden_shapes, golden_state_dict, material
from yolox_jax.augment.geometry import letterbox
from yolox_jax.data import images
from yolox_jax.data.sources.coco import CocoSource
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.errors import UserError
from yolox_jax.evaluation import exported
from yolox_jax.evaluation.exported import Evaluation, check_drop, measure
from yolox_jax.inference import pretrained
from yolox_jax.inference.export import certificate, int8, runtimes
from yolox_jax.inference.export.formats import FORMATS, ExportConfig, check_int8_packages
from yolox_jax.inference.export.official_network import folded_tensors
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.inference.pretrained import Pretrained
from yolox_jax.models import yolox
from yolox_jax.types import Detections
from yolox_jax.weights import safetensors_file
from yolox_jax.weights.official import from_state_dict
from yolox_jax.weights.safetensors_file import About


def test_rounding_has_256_steps_keeps_0_and_clips():
    values = np.linspace(-3, 9, 10_001, dtype=np.float32)
    found = np.asarray(int8.rounded(values, -1.0, 4.0))
    assert len(np.unique(found)) == 256 and 0 in found
    inside = (values > -1) & (values < 4)
    assert abs(found - values)[inside].max() <= 5 / 255 / 2 + 1e-5
    assert found.min() == pytest.approx(-1, abs=0.02) and found.max() == pytest.approx(4, abs=0.02)


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("backbone.backbone.stem.conv.act.gate", "stem"),
        ("backbone.backbone.stem.0.conv", "stem"),
        ("backbone.backbone.dark3.1.m.0.conv1.conv", "dark3.1"),
        ("backbone.lateral_conv0.up", "lateral_conv0"),
        ("backbone.C3_p4.m.0.conv2.dconv.conv", "C3_p4"),
        ("head.cls_convs.0.1.conv", "head.cls_convs.0"),
        ("head.reg_preds.2", "head.reg_preds.2"),
    ],
)
def test_a_layer_belongs_to_a_block(layer, block):
    assert int8.block_of(layer) == block


def test_the_blocks_with_the_largest_errors_stay_in_float_until_the_rest_is_within_the_bound():
    squares = {"a": 4.0, "b": 9.0, "c": 1.0, "d": 0.25}

    def chosen(most_error):
        return int8.choose_float_blocks(
            list(squares), lambda names: sum(squares[name] for name in names) ** 0.5, most_error
        )

    assert chosen(4.0) == ()
    assert chosen(2.5) == ("b",)
    assert chosen(1.2) == ("a", "b")  # in their order, not by error
    assert chosen(0.0) == ("a", "b", "c", "d")


def test_a_file_that_loses_too_much_ap_is_refused():
    check_drop("nano.onnx", 0.32, 0.31, 0.02)
    with pytest.raises(UserError, match=r"^INT8 loses 0\.0300 AP, more than --max_drop=0\.02, so nano\.onnx is not"):
        check_drop("nano.onnx", 0.32, 0.29, 0.02)


@pytest.mark.parametrize("ap", [-1.0, 0.0, float("nan")])
def test_an_ap_that_says_nothing_is_refused(ap):
    with pytest.raises(UserError, match=r"^the AP of float32 is -?[\dna.]+, which says nothing about INT8, so nano"):
        check_drop("nano.onnx", ap, ap, 1.0)


def test_the_time_of_an_image_is_that_of_a_call_over_its_images(monkeypatch, tmp_path):
    monkeypatch.setitem(FORMATS, "made", (".made", lambda path, loaded, config: path.write_bytes(bytes(2_000_000))))
    monkeypatch.setattr(runtimes, "open_run", lambda path, detect: None)
    monkeypatch.setattr(exported, "_milliseconds", lambda runs, image_HW3: dict.fromkeys(runs, 80.0))
    files = {str(batch): ("made", ExportConfig((64, 64), batch, None)) for batch in (None, 1, 8)}
    loaded = Pretrained("nano", None, {}, ("a",), (64, 64))
    found = measure(files, loaded, np.zeros((64, 64, 3), np.uint8), None, tmp_path)
    assert {name: each.milliseconds for name, each in found.items()} == {"None": 80, "1": 80, "8": 10}
    assert all(each.megabytes == 2 and each.ap is None for each in found.values())


# The program three times, with one plan: with its own APs, which are 0, and with a loss of 0.03.
_EXPORTS = """
import dataclasses

from absl import app, flags

from yolox_jax.cli.terminal import parse_flags
from yolox_jax.evaluation import exported
from yolox_jax.tools import export

measure, make_plan, plans = exported.measure, export.make_plan, []


def make_one_plan(*given):
    plans[:] = plans or [make_plan(*given)]
    return plans[0]


export.make_plan = make_one_plan


def measure_a_loss(files, loaded, image_HW3, evaluation, folder, progress):
    found = measure(files, loaded, image_HW3, None, folder)
    return {name: dataclasses.replace(each, ap={"float32": 0.32, "INT8": 0.29}[name]) for name, each in found.items()}


def main(argv):
    for max_drop, measured in (0.02, measure), (0.02, measure_a_loss), (0.05, measure_a_loss):
        flags.FLAGS.max_drop, exported.measure = max_drop, measured
        try:
            export.main(argv)
        except SystemExit as ended:
            with open("nano.onnx", "rb") as file:
                print(ended, "|", file.read())


app.run(main, flags_parser=parse_flags)
"""


@pytest.mark.slow
def test_a_file_beyond_max_drop_does_not_replace_the_one_that_is_there(tmp_path):
    programs.make_data_set(tmp_path)
    (tmp_path / "nano.onnx").write_bytes(b"before")
    (tmp_path / "exports.py").write_text(_EXPORTS)
    shapes, names = golden_shapes("nano"), ShapesSource(1, seed=0).class_names
    shapes = {name: (len(names), *shape[1:]) if "cls_preds" in name else shape for name, shape in shapes.items()}
    weights = tmp_path / "nano.safetensors"
    safetensors_file.save(weights, golden_state_dict(shapes), About("nano", names, (64, 64), "full"))
    before = {each.name for each in tmp_path.iterdir()}
    arguments = [f"--weights={weights}", "--format=onnx", "--int8", "--calibrate=images/1.png", "--output=nano.onnx"]
    arguments += ["--evaluate", "--nocertificate", *programs.arguments(tmp_path), "--config.eval.detect.conf=0.9"]
    printed = programs.run(str(tmp_path / "exports.py"), arguments, tmp_path, 0).stdout
    no_ap, lost = re.findall(r"^error: (.*?): .* \| b'before'$", printed, flags=re.MULTILINE)
    assert no_ap == "the AP of float32 is 0.0000, which says nothing about INT8, so nano.onnx is not written"
    assert lost == "INT8 loses 0.0300 AP, more than --max_drop=0.02, so nano.onnx is not written"
    written = printed.split("b'before'\n")[-1]
    assert re.search(r"AP 0\.3200\nINT8 .* AP 0\.2900\nnano\.onnx: YOLOX-nano at 64x64, 4 classes, ", written)
    assert onnx.load(tmp_path / "nano.onnx").graph.node
    assert {each.name for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("form", "module", "needed"),
    [
        ("onnx", "onnxruntime", "onnx onnxruntime"),
        ("litert", "litert_quantizer", "ai-edge-litert litert-quantizer"),
        ("litert", "ai_edge_litert", "ai-edge-litert litert-quantizer"),
    ],
)
def test_a_package_that_int8_needs_and_is_missing_is_named(form, module, needed, monkeypatch):
    monkeypatch.delitem(sys.modules, f"yolox_jax.inference.export.int8_{form}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"^--format={form} --int8 needs a package \(.*\): pip install {needed}$"):
        check_int8_packages(form)


@pytest.mark.slow
def test_the_program_looks_for_the_packages_before_it_reads_weights(tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')\n")
    arguments = ["--weights=no_such_file", "--format=onnx", "--int8", "--calibrate=photos"]
    result = programs.run("-m yolox_jax.tools.export", arguments, tmp_path, 1)
    assert result.stderr.startswith("error: --format=onnx --int8 needs a package (not here): pip install")


@pytest.fixture(scope="module")
def loaded():
    model = yolox.create("nano")
    variables = from_state_dict(golden_state_dict(golden_shapes("nano")), model)
    return Pretrained("nano", model, variables, tuple(f"class {label}" for label in range(80)), (64, 64))


@pytest.fixture(scope="module")
def photographs():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(params=["onnx", "litert"])
def form(request):
    """A format whose quantizer is installed."""
    if request.param == "litert":
        pytest.importorskip("litert_quantizer")
    return request.param


@pytest.fixture(scope="module")
def plan(loaded, photographs):
    return int8.make_plan(folded_tensors(loaded), photographs[:2])


@pytest.mark.slow
def test_a_plan_has_the_ranges_of_the_network(plan, loaded):
    assert plan.ranges["backbone.backbone.stem.conv.conv.patches"] == (0.0, 255.0)
    gates = [name for name in plan.ranges if name.endswith(".act.gate")]
    before = [name.replace(".act.gate", ".conv") for name in gates]
    assert len(before) > 50 and all(plan.ranges[name][0] >= -6 for name in before)
    assert all(low <= 0 <= high for low, high in plan.ranges.values())
    assert not any(map(plan.is_int8, ("head.cls_preds.0", "head.obj_preds.1", "head.reg_preds.2")))


@pytest.mark.slow
def test_an_int8_file_is_small_has_the_plan_and_finds_nearly_what_the_float_file_finds(
    form, loaded, photographs, plan, tmp_path
):
    ending, write = FORMATS[form]
    found, sizes, detect = [], [], DetectConfig(conf=0.0)
    for number, each in enumerate((None, plan)):
        path = tmp_path / f"{number}{ending}"
        certified = certificate.make(_nothing, loaded.class_names, (64, 64), detect, certificate.INT8, photographs)
        write(path, loaded, ExportConfig((64, 64), None, detect, certificate=certified, int8=each))
        assert len(runtimes.open_exported(path)[0].images) == 3
        sizes.append(path.stat().st_size)
        found.append(runtimes.open_run(path, detect)(photographs[2:]))
        fewer = runtimes.open_network(path, dataclasses.replace(detect, max_detections=9))(photographs[2:])
        assert fewer.mask.sum() == 9
        same = runtimes.open_network(path, detect)(photographs[2:])
        np.testing.assert_allclose(same.scores[same.mask], found[-1].scores[found[-1].mask], rtol=1e-5)
    assert sizes[1] < 0.6 * sizes[0]
    count = 50  # the best, of many that are alike
    np.testing.assert_allclose(found[1].scores[0, :count], found[0].scores[0, :count], rtol=0.2)
    assert not np.array_equal(found[1].scores, found[0].scores)
    in_int8 = {name for name in plan.ranges if name.endswith(".conv") and plan.is_int8(name)}
    assert _convolutions_in_int8(path) == in_int8 and 30 < len(in_int8)
    tensors = folded_tensors(loaded)
    assert _numbers_of_scales(path) == {name: len(tensors[f"{name}.weight"]) for name in in_int8}


@pytest.fixture(scope="module")
def narrow_darknet53():
    """Its layers with a sixteenth of their channels."""
    rng, state_dict = np.random.default_rng(0), {}
    for name, whole in golden_shapes("darknet53").items():
        if len(whole) == 4:
            out, channels, *size = whole
            shape = (out if "_preds" in name else out // 16, channels // 16 or channels, *size)
            gain = 0.2 if ".layer2." in name or "_preds" in name else 1.4  # so that values keep their size
            state_dict[name] = rng.normal(0, gain / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
            state_dict[name.removesuffix("weight") + "bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    state_dict["backbone.backbone.stem.0.conv.weight"] /= 128
    return state_dict


@pytest.mark.slow
def test_a_network_whose_first_convolution_takes_the_images_is_quantized_too(
    form, narrow_darknet53, photographs, tmp_path, monkeypatch
):
    plan = int8.make_plan(narrow_darknet53, photographs[:1], most_error=1e9)
    writer = importlib.import_module(f"yolox_jax.inference.export.{form}_file")
    monkeypatch.setattr(writer, "folded_tensors", lambda loaded: narrow_darknet53)
    loaded = Pretrained("darknet53", None, {}, tuple(f"class {label}" for label in range(80)), (64, 64))
    ending, write = FORMATS[form]
    path = tmp_path / f"darknet53{ending}"
    write(path, loaded, ExportConfig((64, 64), 1, DetectConfig(), int8=plan))
    assert "backbone.backbone.stem.0.conv" in _convolutions_in_int8(path)


def _nothing(images_BHW3):
    nothing = np.zeros((1, 0), np.float32)
    return Detections(nothing[..., None].repeat(4, axis=2), nothing, nothing.astype(np.int32), nothing.astype(bool))


def _convolutions_in_int8(path):
    if path.suffix == ".onnx":
        model = onnx.load(path)
        makers = {output: node.op_type for node in model.graph.node for output in node.output}
        return {
            node.name
            for node in model.graph.node
            if node.op_type == "Conv" and makers.get(node.input[1]) == "DequantizeLinear"
        }
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    tensors = schema.ModelT.InitFromPackedBuf(path.read_bytes()).subgraphs[0].tensors
    names = {each.name.decode(): each.type for each in tensors if each.name.endswith(b".weight")}
    return {name.removesuffix(".weight") for name, kind in names.items() if kind == schema.TensorType.INT8}


def _numbers_of_scales(path):
    """Of each convolution in INT8, the number of scales of its weights."""
    if path.suffix == ".onnx":
        model = onnx.load(path)
        sizes = {each.name: int(np.prod(each.dims)) for each in model.graph.initializer}
        makers = {output: node for node in model.graph.node for output in node.output}
        weights = {node.name: makers.get(node.input[1]) for node in model.graph.node if node.op_type == "Conv"}
        return {
            name: sizes[maker.input[1]]
            for name, maker in weights.items()
            if maker and maker.op_type == "DequantizeLinear"
        }
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    tensors = schema.ModelT.InitFromPackedBuf(path.read_bytes()).subgraphs[0].tensors
    weights = [each for each in tensors if each.name.endswith(b".weight") and each.type == schema.TensorType.INT8]
    return {each.name.decode().removesuffix(".weight"): len(each.quantization.scale) for each in weights}


@pytest.mark.slow
def test_the_official_nano_loses_at_most_0_012_ap_in_int8_calibrated_on_other_images(tmp_path):
    """And finds in photographs nearly everything that the run finds, and little else."""
    loaded = pretrained.load(str(material("weights/yolox_nano_coco.pth")), "float32")
    pytest.importorskip("litert_quantizer")
    coco, bccd = material("data/coco_val100"), material("data/bccd/images")
    others = sorted(bccd.iterdir())[:20]
    images_BHW3 = np.stack([letterbox(images.read(path), loaded.size_hw)[0] for path in others])
    plan = int8.make_plan(folded_tensors(loaded), images_BHW3)
    source, detect = CocoSource(coco / "annotations.json", coco / "images", "val"), DetectConfig(conf=0.3)
    run, pictures = pretrained.make_detect(loaded, detect), (source[index].image for index in range(8))
    certified = certificate.make(run, loaded.class_names, loaded.size_hw, detect, certificate.INT8, pictures)
    config = ExportConfig(loaded.size_hw, 1, DetectConfig(), int8=plan)
    files = {form: (form, config) for form in ("onnx", "litert")}
    for found in measure(files, loaded, images_BHW3[0], Evaluation(source, DetectConfig()), tmp_path).values():
        assert found.ap is not None and found.ap >= 0.3264 - 0.012
        assert found.megabytes < 0.5 * 3.75
        # Of objects unlike those of the calibration, some scores differ by more than the bound, and NMS keeps others.
        difference = certificate.compare(certified, runtimes.open_run(found.path, detect))
        assert difference.num_detections >= 0.9 * certified.num_detections > 10
        assert len(difference.only_in_one) <= 0.1 * certified.num_detections
        assert difference.box_pixels <= certificate.INT8.box_pixels
