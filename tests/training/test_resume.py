"""A run resumes only under a config that could have started it, and other changes are reported."""

import types

import pytest

from yolox_jax.errors import UserError
from yolox_jax.training import resume
from yolox_jax.weights.checkpoint import Meta

_CONFIG = {"model": "nano", "optimizer": "sgd", "epochs": 3, "input_size": (64, 64), "eval": {"conf": 0.1}}
_IN_JSON = {**_CONFIG, "input_size": [64, 64]}


def _check(config, total_steps=9, written=_IN_JSON, differences=()):
    loader = types.SimpleNamespace(differences=lambda data_state: list(differences))
    resume.check(Meta("nano", ("cat",), 5, written, {}), config, ("cat",), loader, total_steps, "runs/a")


def test_the_same_config_resumes_without_a_message(capsys):
    _check(_CONFIG)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {**_CONFIG, "model": "tiny"}}, "model: nano there, tiny here"),
        ({"config": {**_CONFIG, "optimizer": "adamw"}}, "optimizer: sgd there, adamw here"),
        ({"total_steps": 4}, "5 steps are done there, the config has 4"),
        ({"differences": ["batch_size: 4 there, 8 here"]}, "batch_size: 4 there, 8 here"),
    ],
)
def test_a_config_that_could_not_have_started_the_run_is_refused(change, message):
    with pytest.raises(UserError, match=rf"runs/a holds a run that this config cannot resume \({message}\): choose"):
        _check(**{"config": _CONFIG, **change})


def test_changed_fields_get_a_line_each_and_new_fields_one_together(capsys):
    written = {**_IN_JSON, "epochs": 2, "old": 1}
    _check({**_CONFIG, "eval": {"conf": 0.2}, "loss": {"iou_weight": 5.0, "iou_type": "iou"}}, written=written)
    assert capsys.readouterr().out.splitlines() == [
        "config.epochs was 2 and is 3 from here on",
        "config.eval.conf was 0.1 and is 0.2 from here on",
        "config.old was 1; this version has no such field",
        "new since this run began: config.loss.iou_type=iou, config.loss.iou_weight=5.0",
    ]
