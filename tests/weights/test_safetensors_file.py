"""Weights as .safetensors: every bit, the official names, and what the metadata say."""

import json
import sys

import jax
import numpy as np
import pytest

from tests.material import golden_shapes, golden_state_dict
from yolox_jax.errors import UserError
from yolox_jax.inference import pretrained
from yolox_jax.weights import load, safetensors_file
from yolox_jax.weights.safetensors_file import About

safetensors = pytest.importorskip("safetensors")

_NAMES = tuple(f"kind {label}" for label in range(80))
_ABOUT = About("nano", _NAMES, (320, 416), "range")


@pytest.fixture(scope="module")
def state_dict():
    return golden_state_dict(golden_shapes("nano"))


@pytest.fixture(scope="module")
def path(state_dict, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    safetensors_file.save(path, state_dict, _ABOUT)
    return path


def test_a_file_has_the_official_tensors_bit_for_bit(path, state_dict):
    tensors, about = safetensors_file.load(path)
    assert about == _ABOUT and tensors.keys() == state_dict.keys()
    for name, tensor in state_dict.items():
        np.testing.assert_array_equal(tensors[name], tensor, err_msg=name)
        assert tensors[name].dtype == tensor.dtype


def test_other_programs_read_the_metadata_as_texts(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt" and metadata["model"] == "nano"
    assert json.loads(metadata["class_names"]) == list(_NAMES) and json.loads(metadata["input_size"]) == [320, 416]


def test_the_network_classes_and_size_are_those_of_the_file(path):
    loaded = pretrained.load(str(path))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded.variables))
    assert (loaded.name, loaded.class_names, loaded.size_hw) == ("nano", _NAMES, (320, 416))
    assert loaded.image_config.sixteen_bit == "range"


def test_classes_are_matched_by_the_names_in_the_file(path, state_dict):
    turned = load.load_weights(str(path), "nano", _NAMES[::-1])
    bias = turned["params"]["head"]["cls_preds"]["0"]["bias"]
    np.testing.assert_array_equal(bias, state_dict["head.cls_preds.0.bias"][::-1])
    with pytest.raises(UserError, match="was trained on the 80 classes"):
        load.load_weights(str(path), "nano", ("another",))


def test_the_file_of_another_program_has_no_metadata_and_may_be_float16(state_dict, tmp_path):
    halves = {name: x.astype(np.float16) if x.dtype == np.float32 else x for name, x in state_dict.items()}
    numpy_files = pytest.importorskip("safetensors.numpy")
    numpy_files.save_file(halves, tmp_path / "other.safetensors")
    tensors, about = safetensors_file.load(tmp_path / "other.safetensors")
    assert about is None and {tensor.dtype for tensor in tensors.values()} == {np.dtype("f4"), np.dtype("i8")}


def test_a_type_that_numpy_lacks_is_named(tmp_path):
    header = json.dumps({"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "short.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(UserError, match="has tensors of type 'BF16': save them as float32 or float16"):
        safetensors_file.load(tmp_path / "short.safetensors")


@pytest.mark.parametrize("change", ["cut", "text", "empty", "names", "size"])
def test_a_damaged_file_is_one_message(path, tmp_path, change):
    data = path.read_bytes()
    broken = {
        "cut": data[:-100],
        "text": b"not a file of weights",
        "empty": b"",
        "names": data.replace(b"kind 79", b'kind"79'),
        "size": data.replace(b"[320, 416]", b"[320, 417]"),
    }[change]
    (tmp_path / "broken.safetensors").write_bytes(broken)
    with pytest.raises(UserError, match="broken.safetensors is not a .safetensors file, or damaged .*: copy it again"):
        safetensors_file.load(tmp_path / "broken.safetensors")


def test_missing_and_unfit_files_are_named(path, state_dict, tmp_path):
    with pytest.raises(UserError, match="there is no file .*none.safetensors"):
        safetensors_file.load(tmp_path / "none.safetensors")
    few = About("nano", _NAMES[:3], (416, 416), "full")
    safetensors_file.save(tmp_path / "few.safetensors", state_dict, few)
    with pytest.raises(UserError, match="names 3 classes, but its tensors predict 80: export it again"):
        load.read_official(str(tmp_path / "few.safetensors"))
    with pytest.raises(UserError, match="few.safetensors/x.safetensors cannot be written"):
        safetensors_file.save(tmp_path / "few.safetensors" / "x.safetensors", {"a": np.zeros(3)}, _ABOUT)


def test_numbers_that_are_not_finite_are_refused(state_dict, tmp_path):
    broken = dict(state_dict) | {"head.obj_preds.0.bias": np.array([np.nan], np.float32)}
    safetensors_file.save(tmp_path / "nan.safetensors", broken, _ABOUT)
    with pytest.raises(UserError, match="1 of 1 numbers of .*head.obj_preds.0.bias.* are not finite"):
        load.read_official(str(tmp_path / "nan.safetensors"))


def test_without_the_package_the_error_says_how_to_install_it(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(UserError, match="needs the package safetensors .*: pip install safetensors"):
        safetensors_file.load(path)
