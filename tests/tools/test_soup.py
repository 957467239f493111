"""Weights that are averaged: the mean, what is refused, and the program from two checkpoints to a file."""

import re

import jax
import numpy as np
import pytest

from tests import small
from tests.training import toy
from yolox_jax.augment import geometry
from yolox_jax.cli import from_config
from yolox_jax.errors import UserError
from yolox_jax.evaluation.ap_result import ApResult
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.run.evaluate import Evaluator
from yolox_jax.tools.soup import averaging
from yolox_jax.training import optim, state
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.weights.load import FoundWeights

_CLASSES = ("circle", "square", "triangle", "star")


def _random(seed):
    rng = np.random.default_rng(seed)
    bn = {"mean": rng.normal(size=3).astype(np.float32), "var": np.ones(3, np.float32)}
    return {"params": {"a": {"kernel": rng.normal(size=(2, 5)).astype(np.float32)}}, "batch_stats": {"a": {"bn": bn}}}


def test_the_average_is_numpys_mean_in_float32():
    each = [_random(seed) for seed in range(3)]
    averaged = averaging.average(each)
    for found, *arrays in (
        [v["params"]["a"]["kernel"] for v in (averaged, *each)],
        [v["batch_stats"]["a"]["bn"]["mean"] for v in (averaged, *each)],
    ):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.stack(arrays).astype(np.float64).mean(axis=0).astype(np.float32))


def test_only_a_batch_norm_with_equal_statistics_everywhere_was_frozen():
    each = [_random(seed) for seed in range(3)]
    assert averaging.unchanged_statistics(each) == ()  # the variances alone are equal
    for other in each[1:]:
        other["batch_stats"]["a"]["bn"]["mean"] = each[0]["batch_stats"]["a"]["bn"]["mean"].copy()
    assert averaging.unchanged_statistics(each) == ("^a/bn/(mean|var)$",)


def test_different_networks_are_one_message_that_names_each(monkeypatch):
    networks = {"A": "nano", "B": "tiny"}
    monkeypatch.setattr(
        averaging, "find_weights", lambda spec: FoundWeights(spec, None, toy.meta(1, model=networks[spec]))
    )
    with pytest.raises(UserError, match="^--weights has different networks: A is a YOLOX-nano, B is a YOLOX-tiny: av"):
        averaging.find_all(["A", "B"], "soup.pth")


def test_one_checkpoint_by_two_names_is_one_message_that_has_both(monkeypatch, tmp_path):
    steps = {"run/best": "2", "run/last": "2", "run/checkpoints/1": "1"}
    found = {spec: FoundWeights(spec, tmp_path / step, toy.meta(1)) for spec, step in steps.items()}
    monkeypatch.setattr(averaging, "find_weights", found.__getitem__)
    with pytest.raises(UserError, match="^run/best and run/last are the same weights: leave one of them out"):
        averaging.find_all(list(found), "soup.pth")
    assert [each.spec for each in averaging.find_all(list(found)[1:], "soup.pth")] == list(found)[1:]


@pytest.mark.parametrize("num_batches", [2, 9])
def test_the_images_that_statistics_are_measured_on_are_mixed(num_batches):
    config = small.get_config()
    config.input_size, config.eval.batch_size = (64, 64), 8
    config.data.shapes.num_train = 19
    batches, count = averaging.training_batches(config, num_batches)
    source = from_config.open_source(config, "train")
    order = np.random.Generator(np.random.Philox(0)).permutation(19)
    expected = [geometry.letterbox(source[int(index)].image, (64, 64))[0] for index in order[:16]]
    np.testing.assert_array_equal(np.concatenate(list(batches)), np.stack(expected))
    assert count == 2 and not np.all(np.diff(order) > 0)


@pytest.mark.parametrize(
    ("specs", "output", "message"),
    [
        (["A"], "soup.pth", "--weights is A: give two or more, with commas between"),
        (["A", "B"], "averaging.onnx", "--output is averaging.onnx: choose a name that ends in .safetensors or .pth"),
        (["absent.pth", "B"], "soup.pth", "there is no file or folder absent.pth"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_message(specs, output, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        averaging.find_all(specs, output)


@pytest.fixture(scope="module")
def request_of(tmp_path_factory):
    """A config, a function from "mine/checkpoints/1", … to what --weights finds, and the mean of mine's EMA weights.

    The runs are `mine` and `other`, which has other classes. Raw weights differ from the EMA weights.
    """
    folder = tmp_path_factory.mktemp("soup")
    config = small.get_config()
    config.input_size, config.eval.batch_size = (64, 64), 8
    config.data.shapes.update({"num_train": 19, "num_val": 8})
    initial = state.init_variables(from_config.model(config, len(_CLASSES)), seed=0)
    for run, names in (("mine", _CLASSES), ("other", ("ring", *_CLASSES[1:]))):
        checkpoints = Checkpoints(folder / run)
        for step in (1, 2):
            meta = toy.meta(step, model="pico", config={"input_size": [64, 64], "optimizer": "sgd"}, class_names=names)
            raw = state.create(_shifted(initial, -step), optim.sgd(0.9, 0.0))
            checkpoints.save(raw.replace(ema=_shifted(initial, 0.01 * step)), meta)
        checkpoints.close()
    find = lambda *specs: averaging.find_all([f"{folder}/{spec}" for spec in specs], "soup.pth")
    return config, find, _shifted(initial, 0.015)


def _shifted(variables, by):
    return jax.tree.map(lambda x: np.asarray(x + by), variables)


@pytest.mark.slow
@pytest.mark.parametrize("measured_is_better", [True, False])
def test_the_better_form_of_the_average_is_taken_and_each_ap_is_printed(
    request_of, monkeypatch, capsys, measured_is_better
):
    """The evaluations themselves are those of eval.py."""
    config, find, mean_of_ema = request_of
    found = find("mine/checkpoints/1", "mine")
    aps, judged = iter([0.5, 0.3, 0.45, 0.55 if measured_is_better else 0.4]), []
    monkeypatch.setattr(Evaluator, "__call__", lambda _, variables: judged.append(variables) or _with_ap(next(aps)))
    made = averaging.make_soup(config, found, num_batches=2)
    output = capsys.readouterr().out
    assert f"AP 0.5000  {found[0].spec}\nAP 0.3000  {found[1].spec}\nAP 0.4500  the average of 2, Batch" in output
    assert "measured BatchNorm on 2/2 batches\n" in output  # 16 of 19 images
    gain = "+0.0500 against the best, +0.1500" if measured_is_better else "-0.0500 against the best, +0.0500"
    assert output.endswith(f"the average: {gain} against their mean\n")
    mean = judged[2]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), mean, mean_of_ema)
    measured = judged[3]
    jax.tree.map(np.testing.assert_array_equal, measured["params"], mean["params"])
    of_images, of_checkpoints = (each["batch_stats"]["backbone"]["backbone"]["stem"] for each in (measured, mean))
    assert np.abs(of_images["conv"]["bn"]["var"] - of_checkpoints["conv"]["bn"]["var"]).min() > 1
    assert made.variables is judged[3 if measured_is_better else 2]
    assert (made.name, made.class_names, made.size_hw) == ("pico", _CLASSES, (64, 64))


def _with_ap(ap):
    return EvalResult(ApResult({"AP": ap}, {}, ()), [], 8, None)


@pytest.mark.slow
def test_weights_of_other_classes_are_refused(request_of):
    config, find, _ = request_of
    with pytest.raises(UserError, match="other/checkpoints/2 was trained on the 4 classes ring, square"):
        averaging.make_soup(config, find("mine", "other"), num_batches=1)
