"""A run that an older version wrote resumes and evaluates as it did with that version (golden/make_old_run.py)."""

import json
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import programs
from yolox_jax.models import yolox
from yolox_jax.training import optim, state
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.weights.official import abstract_variables

_GOLDEN = programs.ROOT / "tests" / "golden"
_OLD = json.loads((_GOLDEN / "old_run.json").read_text())


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(_GOLDEN / "old_run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def _flags() -> list[str]:
    config, *fields = _OLD["flags"]
    name, file = config.split("=")
    return [f"{name}={programs.ROOT / file}", *fields]


@pytest.mark.slow
def test_an_old_run_is_evaluated_to_the_same_ap(folder):
    programs.run("eval.py", [*_flags(), "--weights=run", "--output=ap.json"], folder, 0)
    found = json.loads((folder / "ap.json").read_text())
    # Another processor rounds differently, which may swap two detections of nearly equal scores.
    for name in ("AP", "AP50", "AP75", "AR_100"):
        assert found[name] == pytest.approx(_OLD["evaluated"][name], abs=0.002), name


@pytest.mark.slow
def test_every_array_of_an_old_checkpoint_has_its_place_in_the_state(folder):
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_variables(yolox.create("nano", 4)))
    like = state.create(variables, optim.create("adamw", momentum=0.9, weight_decay=0.05))
    restored, meta = Checkpoints(folder / "run").restore_latest(like, check=lambda meta: None)
    assert restored.step == meta.step == _OLD["first_step"]
    arrays = [np.asarray(array) for array in jax.tree.leaves(restored)]
    assert all(np.isfinite(array).all() for array in arrays)
    assert sum(array.any() for array in jax.tree.leaves(restored.opt_state)) > 400  # AdamW's moments


@pytest.mark.slow
def test_an_old_run_resumes_with_the_same_losses(folder):
    arguments = [*_flags(), "--workdir=run", "--config.log_every_steps=1"]
    output = programs.run("train.py", arguments, folder, 0).stdout
    assert f"from step {_OLD['first_step']} of run\n" in output
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if "loss" in record]
    resumed = [record for record in records if record["step"] >= _OLD["first_step"]]
    assert [record["step"] for record in resumed] == [record["step"] for record in _OLD["steps"]]
    assert len(records) > len(resumed)  # the log of the earlier steps stays
    # The loss of the first step depends only on the old weights and images: float32 sums in another order differ by
    # about 1e-7, and 1e-5 leaves room. After the first update, rounding may move one anchor of about 40 positives.
    for found, expected, tolerance in zip(resumed, _OLD["steps"], [1e-5, *[0.05] * 4], strict=True):
        for name in ("loss", "loss_iou", "loss_obj", "loss_cls", "loss_l1", "num_fg", "learning_rate"):
            assert found[name] == pytest.approx(expected[name], rel=tolerance), (found["step"], name)
