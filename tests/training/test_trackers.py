"""Weights & Biases and MLflow get the numbers of a run. The packages are not installed here: stubs record the calls."""

import sys
import types

import pytest

from yolox_jax.errors import UserError
from yolox_jax.training.trackers import open_tracker

_CONFIG = {"model": "nano"}


@pytest.fixture
def calls(monkeypatch):
    """Installs stubs of both modules, and returns the list of calls to them."""
    calls = []

    def note(name, answer=None):
        return lambda *args, **kwargs: calls.append((name, args, kwargs)) or answer

    run = types.SimpleNamespace(log=note("log"), finish=note("finish"), define_metric=note("define_metric"))
    wandb = types.SimpleNamespace(init=note("init", run))
    started = types.SimpleNamespace(info=types.SimpleNamespace(run_id="m1"))
    mlflow = types.SimpleNamespace(start_run=note("start_run", started))
    for name in ("set_experiment", "log_dict", "log_metrics", "end_run"):
        setattr(mlflow, name, note(name))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return calls


def test_a_resumed_run_is_the_same_one_at_wandb(tmp_path, calls):
    for _ in range(2):
        tracker = open_tracker("wandb", tmp_path, _CONFIG)
        tracker.add({"train/loss": 3.0}, 7)
        tracker.close()
    started = [kwargs for name, _, kwargs in calls if name == "init"]
    assert started[0]["id"] == started[1]["id"] and started[0]["resume"] == "allow"
    assert started[0]["config"] == _CONFIG
    assert calls.count(("log", ({"train/loss": 3.0, "train_step": 7},), {})) == 2


def test_a_resumed_run_is_the_same_one_at_mlflow(tmp_path, calls):
    for _ in range(2):
        tracker = open_tracker("mlflow", tmp_path, _CONFIG)
        tracker.add({"train/loss": 3.0}, 7)
        tracker.close()
    assert [kwargs["run_id"] for name, _, kwargs in calls if name == "start_run"] == [None, "m1"]
    assert [args for name, args, _ in calls if name == "log_dict"] == [(_CONFIG, "config.json")]
    assert calls.count(("log_metrics", ({"train/loss": 3.0},), {"step": 7})) == 2


def test_no_tracker_is_the_default(tmp_path):
    assert open_tracker("", tmp_path, _CONFIG) is None


def test_an_unknown_tracker_or_a_missing_package_is_an_error_with_advice(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="config.tracker is 'comet': choose one of wandb, mlflow, or leave it empty"):
        open_tracker("comet", tmp_path, _CONFIG)
    refuses = types.SimpleNamespace(init=lambda **_: (_ for _ in ()).throw(Exception("api_key not configured")))
    monkeypatch.setitem(sys.modules, "wandb", refuses)
    with pytest.raises(UserError, match=r"wandb failed to start \(api_key not configured\): correct its setup"):
        open_tracker("wandb", tmp_path, _CONFIG)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="not installed: pip install wandb"):
        open_tracker("wandb", tmp_path, _CONFIG)
