"""A run is evaluated with its own network, input size and reading of 16-bit images, unless the command line says so."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from yolox_jax.cli import as_trained
from yolox_jax.weights import safetensors_file
from yolox_jax.weights.load import FoundWeights
from yolox_jax.weights.meta import Meta
from yolox_jax.weights.safetensors_file import About

_RUN = {"input_size": [224, 256], "data": {"sixteen_bit": "range", "root": "elsewhere"}, "epochs": 3}


@pytest.fixture
def config():
    config = base.get_config()
    config.model = "tiny"
    config.lock()
    return config


def _evaluated(config: ConfigDict, run: dict | None, given=()) -> ConfigDict:
    meta = None if run is None else Meta("nano", ("a",), 1, run, {})
    return as_trained.as_trained(config, FoundWeights("runs/mine", None, meta), given)


def _settled(config: ConfigDict) -> tuple:
    return config.model, config.input_size, config.data.sixteen_bit


def test_the_runs_fields_are_taken_and_named_and_all_others_stay(config, capsys, caplog):
    evaluated = _evaluated(config, _RUN)
    assert _settled(evaluated) == ("nano", (224, 256), "range")
    assert _settled(config) == ("tiny", (640, 640), "full")
    assert (evaluated.epochs, evaluated.data.root) == (config.epochs, config.data.root)
    *taken, last = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in taken] == [
        "config.model is nano as in the run, not tiny as in the config",
        "config.input_size is 224x256 as in the run, not 640x640 as in the config",
        "config.data.sixteen_bit is range as in the run, not full as in the config",
    ]
    assert taken[1].endswith(": to change it, give --config.input_size") and last == "evaluating YOLOX-nano at 224x256"
    assert not caplog.messages


@pytest.mark.parametrize("given", ["input_size", "input_size[0]"])
def test_a_field_of_the_command_line_stays_and_a_warning_names_the_runs(config, given, capsys, caplog):
    evaluated = _evaluated(config, _RUN, {given: 640, "model": "tiny", "data.sixteen_bit": "full"})
    assert _settled(evaluated) == _settled(config)
    assert caplog.messages[1] == "config.input_size is 640x640, but the run was trained with 224x256"
    assert len(caplog.messages) == 3
    assert capsys.readouterr().out == "evaluating YOLOX-tiny at 640x640\n"


def test_a_run_older_than_sixteen_bit_read_the_full_range(config):
    with config.unlocked():
        config.data.sixteen_bit = "range"
    assert _settled(_evaluated(config, {"input_size": [64, 64]})) == ("nano", (64, 64), "full")


def test_the_runs_choice_of_classes_is_taken(config, capsys):
    run = {"input_size": [64, 64], "data": {"classes": "a,b", "single_class": True}}
    evaluated = _evaluated(config, run)
    assert (evaluated.data.classes, evaluated.data.single_class) == ("a,b", True)
    assert "config.data.classes is a,b as in the run, not empty as in the config" in capsys.readouterr().out


def test_a_safetensors_file_is_evaluated_as_it_says_with_the_configs_choice_of_classes(config, tmp_path, capsys):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    safetensors_file.save(path, {"x": np.zeros(1)}, About("nano", ("a",), (224, 256), "range"))
    with config.unlocked():
        config.data.classes = "a"
    evaluated = as_trained.as_trained(config, FoundWeights(str(path)), ())
    assert _settled(evaluated) == ("nano", (224, 256), "range") and evaluated.data.classes == "a"
    assert "config.input_size is 224x256 as in the run, not 640x640" in capsys.readouterr().out


def test_official_weights_are_evaluated_with_the_config(config, capsys):
    assert _settled(_evaluated(config, None)) == _settled(config)
    assert capsys.readouterr().out == "evaluating YOLOX-tiny at 640x640\n"
