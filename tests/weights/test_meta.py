"""A checkpoint's meta and ap.json are checked whole: what is wrong with them is one message with file and field."""

import json
import os
import random
import shutil

import pytest

from tests.mutated import mutated_json
from tests.recipe import loader_config, read_config
from tests.training import toy
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.weights import checkpoint, manifest
from yolox_jax.weights.aps import read_aps
from yolox_jax.weights.meta import FILE, CheckpointError, LogMark, Meta

_META = toy.meta(3, log=LogMark(7, 8))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with the checkpoint of step 3, without its manifest, which would find every change first."""
    run = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(run)
    checkpoints.save(toy.create_state(), _META)
    checkpoints.record_ap(3, 0.5)
    checkpoints.close()
    (run / "checkpoints" / "3" / manifest.NAME).unlink()
    return run


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def _without(fields, *names):
    return {name: value for name, value in fields.items() if name not in names}


_CONTENT = json.loads(json.dumps(_META.to_json()))
_CONFIG, _STATE = _CONTENT["config"], _CONTENT["data_state"]


def test_what_was_written_is_read_and_older_metas_lack_the_log():
    assert Meta.from_json(_CONTENT) == _META
    assert Meta.from_json(_without(_CONTENT, "log")) == toy.meta(3)
    for size in (64, [64], [64, 64]):  # as the command line has them
        assert Meta.from_json({**_CONTENT, "config": {**_CONFIG, "input_size": size}}).size_hw == (64, 64)
    assert "log" not in toy.meta(3).to_json()


def test_weights_are_read_without_the_order_of_the_images_and_resuming_names_what_is_missing():
    found = Meta.from_json({**_CONTENT, "data_state": {"next_step": 3}})
    assert found.data_state == {"next_step": 3}
    config = loader_config(size_hw=(64, 64), global_batch=4)
    loader = TrainLoader(ShapesSource(8, seed=0), config, 4, read=read_config())
    assert "num_images: missing there, 8 here" in loader.differences(found.data_state)


def test_a_meta_that_could_not_be_read_again_is_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(toy.create_state(), toy.meta(1, data_state={}))
    with pytest.raises(
        CheckpointError, match="could not be written .*meta/metadata: data_state: the field 'next_step'"
    ):
        checkpoints.close()
    assert checkpoints.steps() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("null", "is null, not an object"),
        ("[" * 100_000, "is nested too deeply"),
        (json.dumps({**_CONTENT, "config": {**_CONFIG, "a": json.loads("[" * 30 + "]" * 30)}}), "is nested too deeply"),
        ('{"step": NaN}', "has NaN, which is no number of JSON"),
        ('{"step": 1e999}', "has the number 1e999, which is too large"),
        (f'{{"step": {"9" * 5000}}}', "has a number of 5000 digits"),
        ('{"step": 3, "step": 3}', "has 'step' twice"),
        ('{"model": "\\ud800"}', "has the text .*, which no file or terminal can store"),
        (b"\xff\xfe{}", "is not text in UTF-8 .byte 0."),
        (_without(_CONTENT, "format_version"), "format_version is null, not a whole number from 1"),
        ({**_CONTENT, "format_version": "3"}, "format_version is '3', not a whole"),
        (_without(_CONTENT, "step"), "the field 'step' is missing"),
        ({**_CONTENT, "stop": 1}, "the field 'stop' is unknown"),
        ({**_CONTENT, "model": None}, "model is null, not a name"),
        ({**_CONTENT, "class_names": "cat"}, "class_names is 'cat', not a list of names"),
        ({**_CONTENT, "class_names": []}, r"class_names is \[\], not a list"),
        ({**_CONTENT, "class_names": ["cat", {}]}, r"class_names\[1\] is {}, not a name"),
        ({**_CONTENT, "step": 4}, "data_state.next_step is 3, but step is 4"),
        ({**_CONTENT, "step": True}, "step is true, not a whole number from 0 to 2147483647"),
        ({**_CONTENT, "step": 4, "data_state": {**_STATE, "next_step": 4}}, "step is 4, not that of the folder"),
        ({**_CONTENT, "config": []}, r"config is \[\], not an object"),
        ({**_CONTENT, "config": _without(_CONFIG, "optimizer")}, "the field 'config.optimizer' is missing"),
        ({**_CONTENT, "config": {**_CONFIG, "optimizer": 1}}, "config.optimizer is 1, not a name"),
        ({**_CONTENT, "config": {**_CONFIG, "input_size": "640"}}, "config.input_size is '640', not one or"),
        (
            {**_CONTENT, "config": {**_CONFIG, "input_size": [65, 64]}},
            r"config.input_size is \[65, 64\]: give positive",
        ),
        ({**_CONTENT, "config": {**_CONFIG, "data": 1}}, "config.data is 1, not an object"),
        (
            {**_CONTENT, "config": {**_CONFIG, "data": {"sixteen_bit": []}}},
            r"config.data.sixteen_bit is \[\], not full",
        ),
        ({**_CONTENT, "data_state": None}, "data_state: is null, not an object"),
        ({**_CONTENT, "data_state": {}}, "data_state: the field 'next_step' is missing"),
        ({**_CONTENT, "data_state": {**_STATE, "epoch": 1}}, "data_state: the field 'epoch' is unknown"),
        ({**_CONTENT, "data_state": {**_STATE, "seed": -1}}, "data_state.seed is -1, not a whole"),
        ({**_CONTENT, "num_devices": 0}, "num_devices is 0, not a whole number from 1"),
        ({**_CONTENT, "num_processes": 2}, "num_processes is 2, not a whole number from 1 to 1"),
        ({**_CONTENT, "packages": {"jax": 1}}, "packages is {'jax': 1}, not an object of versions"),
        ({**_CONTENT, "log": {"num_bytes": 1}}, "log: the field 'crc32' is missing"),
        ({**_CONTENT, "log": {"num_bytes": 1.5, "crc32": 0}}, "log.num_bytes is 1.5, not a whole"),
    ],
)
def test_a_meta_that_is_not_one_is_one_message_with_file_and_field(run, text, message):
    if isinstance(text, dict):
        text = json.dumps(text)
    (run / "checkpoints" / "3" / FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=f"3 cannot be read .meta/metadata: {message}.*: choose another"):
        checkpoint.read_meta(run / "checkpoints" / "3")
    (listed,) = checkpoint.list_checkpoints(run)
    assert listed.is_damaged and listed.condition.startswith("cannot be read: meta/metadata: ")


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe", "/dev/zero"])
def test_a_meta_that_is_no_file_is_one_message(run, kind):
    file = run / "checkpoints" / "3" / FILE
    file.unlink()
    {"missing": id, "a folder": os.mkdir, "a pipe": os.mkfifo}.get(kind, lambda path: path.symlink_to(kind))(file)
    with pytest.raises(CheckpointError, match="3 cannot be read .meta/metadata: .*: choose another"):
        checkpoint.read_meta(run / "checkpoints" / "3")


def test_a_mutated_meta_is_read_as_it_was_meant_or_one_message(run):
    """A change that stays valid is one of a name or a number that nothing else in the checkpoint states."""
    original, rng = (run / "checkpoints" / "3" / FILE).read_bytes(), random.Random(0)
    for data in mutated_json(original, rng, 60):
        (run / "checkpoints" / "3" / FILE).write_bytes(data)
        try:
            found = checkpoint.read_meta(run / "checkpoints" / "3")
        except CheckpointError as error:
            assert "meta/metadata: " in str(error) and len(str(error)) < 600 and "\n" not in str(error), data
        else:
            assert found == Meta.from_json(json.loads(data)) and found.step == found.data_state["next_step"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("[]", r"is \[\], not an object of one AP for each step"),
        ('{"²": 0.5}', "has the step '²'"),
        ('{"-6": 0.5}', "has the step '-6'"),
        ('{"3": 2}', "has the AP 2 for step 3"),
        ('{"3": null}', "has the AP null for step 3"),
        ('{"3": true}', "has the AP true for step 3"),
        ('{"3": NaN}', "has NaN"),
        ('{"3": 0.1, "3": 0.2}', "has '3' twice"),
    ],
)
def test_an_ap_json_that_is_not_one_is_one_message_and_the_list_goes_on_without(run, text, message, caplog):
    (run / "checkpoints" / "ap.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"checkpoints/ap\.json: {message}.*: the next start"):
        checkpoint.find(run / "best")
    (listed,) = checkpoint.list_checkpoints(run)
    assert (listed.condition, listed.ap) == ("complete", None) and "ap.json" in caplog.text


def test_a_mutated_ap_json_is_one_message_or_has_aps(run):
    rng = random.Random(0)
    for data in mutated_json(b'{"3": 0.5, "6": 0.25, "9": -1}', rng, 60):
        (run / "checkpoints" / "ap.json").write_bytes(data)
        try:
            found = read_aps(run / "checkpoints")
        except CheckpointError as error:
            assert "ap.json: " in str(error) and len(str(error)) < 600 and "\n" not in str(error), data
        else:
            assert found == {int(step): float(ap) for step, ap in json.loads(data).items()}


def test_arrays_of_another_network_than_meta_says_are_one_line(run):
    folder, state = run / "checkpoints" / "3", toy.create_state()
    other = {**state.ema, "params": {**state.ema["params"], "stem": state.params["Conv_0"]}}
    with pytest.raises(CheckpointError, match=r"ema has other arrays than meta/metadata says: 2 missing .params/stem/"):
        checkpoint.read_variables(folder, other)
    layer = {**state.ema["params"]["Conv_0"], "bias": state.params["Conv_0"]["bias"][:3]}
    with pytest.raises(CheckpointError, match="1 of another shape .params/Conv_0/bias.*: choose another one"):
        checkpoint.read_variables(folder, {**state.ema, "params": {**state.ema["params"], "Conv_0": layer}})


def test_training_names_the_arrays_of_another_network_in_one_line(run, caplog):
    state = toy.create_state()
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        Checkpoints(run).restore_latest(state.replace(params={"stem": state.params["Conv_0"]}), lambda meta: None)
    (line,) = [each for each in caplog.messages if "cannot be read" in each]
    assert "raw has other arrays than meta/metadata says: 2 missing (params/stem/" in line and len(line) < 400
