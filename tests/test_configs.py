"""The files of configs/: each describes a run that could begin, and finetune.py says no more than it should."""

import importlib

import pytest

from configs import finetune, yolox_nano
from tests.material import ROOT
from yolox_jax.augment.multiscale import MultiscaleConfig
from yolox_jax.detection.anchors import check_size
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.evaluation.evaluate import EvalConfig
from yolox_jax.models import yolox
from yolox_jax.tools import from_config
from yolox_jax.training import optim

_NAMES = sorted(path.stem for path in ROOT.glob("configs/*.py"))


@pytest.mark.parametrize("name", _NAMES)
def test_a_config_describes_a_run_that_could_begin(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    yolox.create(config.model, 3)
    optim.create(config.optimizer, momentum=config.momentum, weight_decay=config.weight_decay)
    size_hw = check_size(config.input_size)
    schedule = from_config.schedule(config, num_images=300)
    assert schedule.total_steps == config.epochs * -(-300 // config.batch_size)
    assert from_config.loader_config(config, size_hw, 300).plain_from_step == schedule.no_aug_step
    from_config.read_config(config)
    SimOtaConfig(**config.assignment)
    EvalConfig(**config.eval.detect)
    multiscale = {field: value for field, value in config.multiscale.items() if field != "enabled"}
    if config.multiscale.enabled:
        first = MultiscaleConfig(**multiscale).first_uses(0, schedule.total_steps, size_hw, config.seed)
        assert all(side % 32 == 0 for size in first for side in size)


def test_finetune_is_the_recipe_of_nano_but_for_data_length_and_where_it_starts():
    own, recipe = finetune.get_config(), yolox_nano.get_config()
    changed = {name for name in recipe if own[name] != recipe[name]}
    assert changed == {"init_from", "data", "epochs", "warmup_epochs", "no_aug_epochs", "batch_size", "eval"}
    assert {name for name in recipe.data if own.data[name] != recipe.data[name]} <= {
        *("root", "train", "train_images", "val", "val_images")
    }
    assert own.eval.detect == recipe.eval.detect
    # The same learning rate an image: only hundreds of images ask for another length, none for another rule.
    assert own.init_from == f"yolox_{own.model}"
