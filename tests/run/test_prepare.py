"""A run knows what it computes in which order, so that programs are compiled in the order of their first use."""

import dataclasses
from types import SimpleNamespace

import pytest

from yolox_jax.augment.multiscale import MultiscaleConfig
from yolox_jax.run.prepare import Run
from yolox_jax.training.schedule import EvaluationDue, Schedule


def _run(multiscale):
    schedule = Schedule(0.1, steps_per_epoch=7, epochs=8, warmup_epochs=1, no_aug_epochs=1, min_lr_ratio=0.05)
    due, config = EvaluationDue(schedule, every_epochs=3), SimpleNamespace(seed=3)
    used = {"schedule": schedule, "evaluation_due": due, "multiscale": multiscale, "config": config}
    return Run(**dict.fromkeys(field.name for field in dataclasses.fields(Run)) | used | {"size_hw": (64, 64)})


@pytest.mark.parametrize("multiscale", [None, MultiscaleConfig(5, 1), MultiscaleConfig(5, 1, end_step=49)])
@pytest.mark.parametrize("evaluates_first", [False, True])
@pytest.mark.parametrize("first_step", [0, 1, 14, 20, 21, 40, 48, 49, 55, 56])
def test_programs_are_in_the_order_of_their_first_use(multiscale, first_step, evaluates_first):
    run = _run(multiscale)
    expected = ["predict"] if evaluates_first else []
    for step in range(first_step, run.schedule.total_steps):
        expected.append(run.size_at(step))
        if run.evaluation_due(step):
            expected.append("predict")
    expected.append("predict")  # of a run that has no step left
    assert run.uses_from(first_step, evaluates_first) == list(dict.fromkeys(expected))
