"""Weights are loaded from a run, a checkpoint, a file and a name, and refused if they do not fit."""

import jax
import numpy as np
import pytest

from tests.material import material, nano_of_seven_classes
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.models import yolox
from yolox_jax.training import optim, state
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.weights import checkpoint, load, official

_SEVEN = tuple("abcdefg")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    _, variables = nano_of_seven_classes()
    checkpoints = Checkpoints(workdir)
    train_state = state.create(variables, optim.sgd(0.9, 0.0))
    raw = jax.tree.map(lambda x: 2 * x, train_state.params)
    checkpoints.save(train_state.replace(params=raw), checkpoint.Meta("nano", _SEVEN, 3, {}, {}))
    checkpoints.close()
    return workdir, variables


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/3"])
def test_a_run_and_its_checkpoint_give_the_ema_weights(run, place):
    workdir, variables = run
    loaded = load.load_weights(str(workdir / place), "nano", _SEVEN)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_the_raw_weights_of_a_run_are_those_that_the_optimizer_updates(run):
    workdir, variables = run
    loaded = load.load_weights(str(workdir), "nano", _SEVEN, item="raw")
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 2 * b), loaded["params"], variables["params"])
    with pytest.raises(UserError, match="config.init_item is 'best': choose ema or raw"):
        load.load_weights(str(workdir), "nano", _SEVEN, item="best")


def test_another_model_is_refused_and_both_are_named(run):
    with pytest.raises(UserError, match="holds a YOLOX-nano, config.model is 'tiny'"):
        load.load_weights(str(run[0]), "tiny", _SEVEN)


def test_other_classes_are_refused_and_both_are_named(run):
    with pytest.raises(UserError, match="7 classes a, b, c, d, e …; the data set has the 2 classes cat, dog"):
        load.load_weights(str(run[0]), "nano", ("cat", "dog"))


def test_transfer_loads_all_but_the_class_layers_from_a_run_of_other_classes(run):
    workdir, variables = run
    loaded = load.load_weights(str(workdir), "nano", ("cat", "dog"), transfer=True)
    ours = official.to_state_dict(loaded, yolox.create("nano", 2))
    theirs = official.to_state_dict(variables, yolox.create("nano", 7))
    same = [name for name in theirs if not name.startswith("head.cls_preds")]
    for name in same:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert ours["head.cls_preds.0.bias"].shape == (2,)


def test_transfer_to_the_same_number_of_other_classes_loads_everything_and_warns(run, caplog):
    workdir, variables = run
    loaded = load.load_weights(str(workdir), "nano", tuple("tuvwxyz"), transfer=True)
    assert "a, b, c, d, e … becomes t, u, v, w, x …" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_an_official_file_of_other_classes_is_refused_unless_transferred():
    path = str(material("weights/yolox_nano_coco.pth"))
    with pytest.raises(UserError, match="80 classes; the data set has the 2 classes cat, dog"):
        load.load_weights(path, "nano", ("cat", "dog"))
    load.load_weights(path, "nano", ("cat", "dog"), transfer=True)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="there is no file or folder .*absent.pth: give a run directory"):
        load.load_weights(str(tmp_path / "absent.pth"), "nano", _SEVEN)
    with pytest.raises(UserError, match="folder without checkpoints"):
        load.load_weights(str(tmp_path), "nano", _SEVEN)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="yolox_nano.*yolox_x"):
        load.load_weights("yolox_huge", "nano", _SEVEN)


def test_a_file_of_another_model_is_named():
    with pytest.raises(UserError, match=r"yolox_nano_coco\.pth: the weights are not of this model"):
        load.load_weights(str(material("weights/yolox_nano_coco.pth")), "tiny", tuple(map(str, range(80))))
