"""Weights are loaded from a run, a checkpoint, a file and a name, and refused if they do not fit."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.material import material, nano_of_seven_classes
from tests.training import toy
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.models import yolox
from yolox_jax.training import optim, state
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.weights import checkpoint, load, official, torch_writer
from yolox_jax.weights.class_rows import find_rows
from yolox_jax.weights.coco_names import COCO_NAMES

_SEVEN = tuple("abcdefg")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    variables = jax.tree.map(np.asarray, nano_of_seven_classes()[1])  # of jax, each shape would be compiled below
    checkpoints = Checkpoints(workdir)
    train_state = state.create(variables, optim.sgd(0.9, 0.0))
    raw = jax.tree.map(lambda x: 2 * x, train_state.params)
    checkpoints.save(train_state.replace(params=raw), toy.meta(3, class_names=_SEVEN))
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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_and_the_first_such_array_is_named(run, tmp_path, value):
    _, variables = run
    state_dict = official.to_state_dict(variables, yolox.create("nano", len(_SEVEN)))
    name = "backbone.backbone.stem.conv.bn.running_var"
    state_dict[name] = state_dict[name].copy()
    state_dict[name][3:5] = value
    torch_writer.save_pth(tmp_path / "a.pth", state_dict)
    with pytest.raises(UserError, match=rf"a.pth: 2 of \d+ numbers of \['{name}'\] are not finite: choose other"):
        load.read_official(str(tmp_path / "a.pth"))


def test_a_checkpoint_whose_ema_weights_are_not_finite_is_refused_with_a_way_to_others(run, monkeypatch):
    _, variables = run
    broken = jax.tree.map(lambda x: np.append(np.nan, x[1:]) if x.ndim == 1 else x, variables["params"])
    monkeypatch.setattr(checkpoint, "read_variables", lambda *args: variables | {"params": broken})
    with pytest.raises(UserError, match=r"checkpoints.3: 1 of \d+ numbers of .'params'.* are not finite: .* lists"):
        load.load_weights(str(run[0]), "nano", _SEVEN)


def test_another_model_is_refused_and_both_are_named(run):
    with pytest.raises(UserError, match="holds a YOLOX-nano, config.model is 'tiny'"):
        load.load_weights(str(run[0]), "tiny", _SEVEN)


def test_other_classes_are_refused_and_listed(run):
    message = (
        "trained on the 7 classes a, b, c, d, e …; the data set has the 2 classes cat, b; "
        "only in the data set: cat; only in the weights: a, c, d, e, f, g: choose weights or data"
    )
    with pytest.raises(UserError, match=message):
        load.load_weights(str(run[0]), "nano", ("cat", "b"))
    with pytest.raises(UserError, match="only in the data set: none; only in the weights: c, d, e, f, g"):
        load.load_weights(str(run[0]), "nano", ("a", "b"))


def _class_layers(variables, num_classes):
    """The class axis first, as in the official file."""
    state_dict = official.to_state_dict(variables, yolox.create("nano", num_classes))
    return {name: tensor for name, tensor in state_dict.items() if name.startswith("head.cls_preds")}


def _assert_others_equal(ours, theirs):
    """All layers are equal but those that predict the class."""
    ours, theirs = flatten_dict(ours), flatten_dict(theirs)
    for path in ours:
        if "cls_preds" not in path:
            np.testing.assert_array_equal(ours[path], theirs[path])


def test_classes_in_another_order_are_matched_by_name(run, caplog):
    workdir, variables = run
    loaded = load.load_weights(str(workdir), "nano", tuple("gabcdef"))
    assert "has the data set's classes in another order: they are matched by name" in caplog.text
    trained = _class_layers(variables, 7)
    for name, tensor in _class_layers(loaded, 7).items():
        np.testing.assert_array_equal(tensor, trained[name][[6, 0, 1, 2, 3, 4, 5]])
    _assert_others_equal(loaded, variables)


def test_transfer_takes_the_classes_that_both_have_and_lists_those_that_start_anew(run, caplog):
    workdir, variables = run
    loaded = load.load_weights(str(workdir), "nano", ("cat", "E", "dog"), transfer=True)
    assert "has 1 of the data set's 3 classes by name; the others start anew: cat, dog" in caplog.text
    trained = _class_layers(variables, 7)
    for name, tensor in _class_layers(loaded, 3).items():
        np.testing.assert_array_equal(tensor[1], trained[name][4])
        if name.endswith("bias"):
            np.testing.assert_allclose(jax.nn.sigmoid(tensor[[0, 2]]), 0.01, rtol=1e-5)
    _assert_others_equal(loaded, variables)


def test_transfer_to_classes_of_which_some_have_other_names_matches_them_by_place_and_warns(run, caplog):
    workdir, variables = run
    loaded = load.load_weights(str(workdir), "nano", tuple("aucvefg"), transfer=True)
    assert "2 classes have other names and are matched by place: b becomes u, d becomes v" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_an_official_file_of_other_classes_is_refused_unless_transferred(caplog):
    path = str(material("weights/yolox_nano_coco.pth"))
    message = (
        "is taken to predict the 80 classes person, .*; the data set has the 2 classes cat, mite; "
        "only in the data set: mite; only in the weights: person, .* and 69 more"
    )
    with pytest.raises(UserError, match=message):
        load.load_weights(path, "nano", ("cat", "mite"))
    loaded = load.load_weights(path, "nano", ("cat", "mite"), transfer=True)
    official_bias = official.load_pth(path)["head.cls_preds.2.bias"]
    assert _class_layers(loaded, 2)["head.cls_preds.2.bias"][0] == official_bias[COCO_NAMES.index("cat")]


def test_the_official_files_classes_follow_a_data_set_that_lists_coco_by_the_alphabet():
    path, names = str(material("weights/yolox_nano_coco.pth")), tuple(sorted(COCO_NAMES))
    order = [COCO_NAMES.index(name) for name in names]
    loaded, tensors = load.load_weights(path, "nano", names), official.load_pth(path)
    for name, tensor in _class_layers(loaded, 80).items():
        np.testing.assert_array_equal(tensor, tensors[name][order])


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


# --- Classes of files that have no names, without reading a file ------------------------------------------------------


@pytest.mark.parametrize("transfer", [False, True])
def test_each_class_gets_the_row_of_its_name(transfer):
    assert find_rows("RUN", ("a", "b", "c"), ("c", "a", "b"), transfer=transfer) == (2, 0, 1)


def test_the_spelling_of_other_tools_is_the_same_name(caplog):
    spelled = tuple(name.title().replace(" ", "_") for name in COCO_NAMES)
    assert find_rows("w.pth", 80, spelled, transfer=False) == tuple(range(80))
    assert not caplog.records
    assert find_rows("RUN", ("a b", "A_B"), ("A_B", "a b"), transfer=False) == (1, 0)  # here it distinguishes two


def test_80_classes_of_which_some_have_darknets_names_are_cocos_in_order_and_listed(caplog):
    names = tuple({"motorcycle": "motorbike", "tv": "tvmonitor"}.get(name, name) for name in COCO_NAMES)
    assert find_rows("w.pth", 80, names, transfer=False) == tuple(range(80))
    assert "matched by place: motorcycle becomes motorbike, tv becomes tvmonitor" in caplog.text
    with pytest.raises(UserError, match="only in the data set: tvmonitor, motorbike; only in the weights: motorcycle"):
        find_rows("w.pth", 80, names[::-1], transfer=False)


def test_a_file_of_as_many_unnamed_classes_is_matched_by_place_and_a_warning_says_so(caplog):
    assert find_rows("w.pth", 2, ("cat", "dog"), transfer=False) == (0, 1)
    assert "w.pth does not name its 2 classes: they are matched by place" in caplog.text
    with pytest.raises(UserError, match="w.pth predicts 3 classes; the data set has the 2 classes cat, dog"):
        find_rows("w.pth", 3, ("cat", "dog"), transfer=False)
    assert find_rows("w.pth", 3, ("cat", "dog"), transfer=True) == (None, None)
    assert "w.pth does not name its 3 classes: all of the data set's 2 start anew" in caplog.text


def test_the_checksum_of_a_file_is_for_the_results_and_a_run_has_none(run, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert load.identify(load.find_weights(str(file))) == {"weights": str(file), "weights_sha256": sha256}
    assert load.identify(load.find_weights(str(run[0]))) == {"weights": str(run[0])}


def test_weights_that_were_found_are_not_looked_for_again(run, monkeypatch):
    """A run that trains meanwhile has a newer last checkpoint, or another best one, at the next look."""
    found = load.find_weights(str(run[0] / "last"))
    monkeypatch.setattr(checkpoint, "find", lambda path: pytest.fail("looked again"))
    jax.tree.map(np.testing.assert_array_equal, load.load_weights(found, "nano", _SEVEN), run[1])
    assert load.identify(found) == {"weights": str(run[0] / "last")} and found.meta.step == 3


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_weights_that_are_a_pointer_of_git_lfs_are_named_so(tmp_path, name):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(UserError, match=rf"{name} cannot be read \(it is a pointer of Git LFS; git lfs pull gets"):
        load.read_weights_file(str(tmp_path / name))
