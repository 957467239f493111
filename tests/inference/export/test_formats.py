"""The files of each export format, for a nano with random weights, and the export program."""

import sys

import numpy as np
import onnx
import pytest

from tests import programs
from tests.material import golden_shapes, golden_state_dict
from yolox_jax.errors import UserError
from yolox_jax.inference import pretrained
from yolox_jax.inference.export.formats import FORMATS, ExportConfig
from yolox_jax.inference.pretrained import DETECTOR_CONFIG
from yolox_jax.weights.torch_file import load_pth
from yolox_jax.weights.torch_writer import save_pth


@pytest.fixture(scope="module")
def state_dict():
    return golden_state_dict(golden_shapes("nano"))


@pytest.fixture(scope="module")
def weights(state_dict, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "nano.pth"
    save_pth(path, state_dict)
    return path


@pytest.fixture(scope="module")
def loaded(weights):
    return pretrained.load(str(weights), "float32")


def _dims(values):
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_an_onnx_file_has_the_given_input_size_batch_and_number_of_slots(loaded, tmp_path):
    config = ExportConfig((64, 96), 2, DETECTOR_CONFIG)
    FORMATS["onnx"][1](tmp_path / "nano.onnx", loaded, config)
    graph = onnx.load(tmp_path / "nano.onnx").graph
    slots = 126  # all anchors of 64x96: fewer than max_detections
    expected = {"images": [2, 64, 96, 3], "boxes": [2, slots, 4]}
    expected |= {name: [2, slots] for name in ("scores", "labels", "mask")}
    assert _dims([*graph.input, *graph.output]) == expected


def test_a_raw_onnx_file_takes_any_number_of_images(loaded, tmp_path):
    FORMATS["onnx"][1](tmp_path / "nano.onnx", loaded, ExportConfig((64, 64), None, None))
    graph = onnx.load(tmp_path / "nano.onnx").graph
    assert _dims([*graph.input, *graph.output]) == {"images": ["batch", 3, 64, 64], "output": ["batch", 84, 85]}


def test_without_the_package_onnx_the_error_says_how_to_install_it(loaded, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="--format=onnx needs the package onnx .*: pip install 'onnx"):
        FORMATS["onnx"][1](tmp_path / "nano.onnx", loaded, ExportConfig((64, 64), None, None))


def test_raw_is_refused_for_stablehlo(loaded, tmp_path):
    with pytest.raises(UserError, match="--raw was given with --format=stablehlo: .* --format=onnx"):
        FORMATS["stablehlo"][1](tmp_path / "nano.zip", loaded, ExportConfig((64, 64), None, None))


@pytest.mark.parametrize("name", ["onnx", "pth"])
def test_an_unwritable_file_is_named(loaded, tmp_path, name):
    (tmp_path / "no").write_text("")
    path = tmp_path / "no" / f"nano.{name}"
    with pytest.raises(UserError, match=f"no/nano.{name} cannot be written .File exists.: "):
        FORMATS[name][1](path, loaded, ExportConfig((64, 64), None, None))


def test_the_program_writes_an_official_file_unchanged_and_prints_what_it_wrote(weights, state_dict, tmp_path):
    arguments = [f"--weights={weights}", "--format=pth", "--output=again.pth"]
    result = programs.run("-m yolox_jax.tools.export", arguments, tmp_path, 0)
    assert "again.pth: YOLOX-nano, 80 classes, " in result.stdout
    written = load_pth(tmp_path / "again.pth")
    assert written.keys() == state_dict.keys()
    for name, array in state_dict.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (["--format=pth", "--raw", "--size=64", "--batch=1"], "--format=pth does not use --size, --batch, --raw"),
        *(
            pytest.param(flags, refused, marks=pytest.mark.slow)
            for flags, refused in (
                (
                    ["--format=pth", "--conf=0.5", "--iou=0.5", "--tta"],
                    "--format=pth does not use --conf, --iou, --tta",
                ),
                (["--format=onnx", "--raw", "--max_detections=5"], "--raw does not use --max_detections"),
                (["--format=litert", "--raw", "--conf=0.5"], "--format=litert does not use --conf, --raw"),
                (["--format=onnx", "--slices=auto", "--tta"], "--format=onnx does not use --tta, --slices"),
                (["--format=stablehlo", "--slices=auto", "--batch=8"], "--slices does not use --batch"),
                (["--format=onnx", "--evaluate", "--max_drop=0.1"], "without --int8, export does not use --evaluate"),
                (["--format=onnx", "--dtype=float16"], "--format=onnx does not use --dtype"),
            )
        ),
    ],
)
def test_the_program_refuses_flags_that_would_have_no_effect(weights, tmp_path, given, refused):
    arguments = [f"--weights={weights}", *given, "--output=file"]
    result = programs.run("-m yolox_jax.tools.export", arguments, tmp_path, 1)
    assert result.stderr == f"error: {refused}: leave it out\n"
    assert not (tmp_path / "file").exists()


@pytest.mark.slow
def test_the_program_refuses_a_size_that_is_not_a_multiple_of_32(weights, tmp_path):
    arguments = [f"--weights={weights}", "--format=onnx", "--size=65"]
    result = programs.run("-m yolox_jax.tools.export", arguments, tmp_path, 1)
    assert "multiples of 32" in result.stderr
