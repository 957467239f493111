"""The learning rate is the reference's, and the L1 loss is on in the no-aug epochs."""

import json

import jax
import numpy as np
import pytest

from tests.material import GOLDEN
from yolox_jax.errors import UserError
from yolox_jax.training.schedule import Schedule

_NUMBERS = {
    "base_lr": 0.1,
    "steps_per_epoch": 10,
    "epochs": 5,
    "warmup_epochs": 1,
    "no_aug_epochs": 2,
    "min_lr_ratio": 0.05,
}


def test_learning_rates_are_the_references():
    golden = json.loads((GOLDEN / "schedule.json").read_text())["lr"]
    schedule = Schedule(
        base_lr=golden["base_lr"],
        steps_per_epoch=golden["iters_per_epoch"],
        epochs=golden["epochs"],
        warmup_epochs=golden["warmup_epochs"],
        no_aug_epochs=golden["no_aug_epochs"],
        min_lr_ratio=golden["min_lr_ratio"],
    )
    ours = jax.vmap(schedule.learning_rate)(np.array(golden["at"]))
    np.testing.assert_allclose(ours, golden["value"], rtol=2e-5, atol=1e-9)


def test_without_warmup_the_first_step_has_the_full_learning_rate():
    schedule = Schedule(**_NUMBERS | {"warmup_epochs": 0})
    np.testing.assert_allclose(schedule.learning_rate(0), 0.1)


def test_the_l1_loss_is_on_from_the_first_step_of_the_no_aug_epochs():
    schedule = Schedule(**_NUMBERS)
    assert [float(schedule.l1_weight(step)) for step in (0, 29, 30, 49)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("base_lr", -0.1, "config.lr_per_image gives a learning rate of -0.1: give 0 or more"),
        ("epochs", 0, "config.epochs is 0: give 1 or more"),
        ("warmup_epochs", -1, "config.warmup_epochs is -1: give 0 or more"),
        ("no_aug_epochs", -1, "config.no_aug_epochs is -1: give 0 or more"),
        ("no_aug_epochs", 5, "config.no_aug_epochs 5 do not fit into config.epochs 5: lower the first two"),
        ("min_lr_ratio", 2.0, "config.min_lr_ratio is 2.0: give a number from 0 to 1"),
        ("steps_per_epoch", 0, "the training set has no images"),
    ],
)
def test_an_impossible_schedule_is_refused_with_its_field(field, value, message):
    with pytest.raises(UserError, match=message):
        Schedule(**_NUMBERS | {field: value})
