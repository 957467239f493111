"""The files of configs/: each describes a run that could begin, and finetune.py says no more than it should."""

import importlib

import pytest

from configs import finetune, yolox_nano
from tests.material import ROOT
from yolox_jax.cli import from_config
from yolox_jax.detection.anchors import check_size
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.models import yolox
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
    assert from_config.loader_config(config, size_hw, 300).no_aug_step == schedule.no_aug_step
    from_config.read_config(config)
    SimOtaConfig(**config.assignment)
    DetectConfig(**config.eval.detect)
    from_config.check_numbers(config)
    if multiscale := from_config.multiscale(config, size_hw, 300):
        first = multiscale.first_uses(0, schedule.total_steps, size_hw, config.seed)
        assert all(side % 32 == 0 for size in first for side in size)


@pytest.mark.parametrize("name", ["nano", "tiny", "s", "m", "l", "x", "darknet53"])
def test_the_named_recipes_are_whole(name):
    """The numbers that base.py gives sources for, and nothing else changed."""
    module = importlib.import_module(f"configs.yolox_{name}")
    plain, release, large_batch = (module.get_config(recipe) for recipe in ("", "release", "large_batch"))
    small = name in ("nano", "tiny")  # which have sizes of their own

    assert release.batch_size == 128 and release.min_box_side == 8
    assert (release.multiscale.min_units, release.multiscale.max_units) == ((10, 20) if small else (14, 26))
    assert release.mixup.scale == (0.8, 1.6)
    assert release.hsv.to_dict() == {"enabled": True, "hue": 0.015, "saturation": 0.7, "value": 0.4, "multiplies": True}
    assert (release.assignment.center_radius, release.assignment.outside_penalty) == (2.5, 1e5)
    assert release.assignment.in_box_candidates
    changed = {"batch_size", "min_box_side", "multiscale", "mixup", "hsv", "assignment"}
    assert {field for field in plain if plain[field] != release[field]} == changed
    assert release.multiscale.in_plain_epochs and not plain.multiscale.in_plain_epochs

    assert (large_batch.batch_size, large_batch.optimizer, large_batch.weight_decay) == (256, "adamw", 0.05)
    schedule = from_config.schedule(large_batch, 118287)
    assert schedule.base_lr == pytest.approx(0.004) and schedule.no_aug_epochs == 20
    assert large_batch.ema_decay == pytest.approx(0.9998) and large_batch.multiscale.every_steps == 1
    changed = {"batch_size", "optimizer", "weight_decay", "lr_per_image", "multiscale", "no_aug_epochs"}
    assert {field for field in plain if plain[field] != large_batch[field]} - {"ema_decay"} == changed


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match="no recipe 'relase': choose one of release, large_batch, or none"):
        yolox_nano.get_config("relase")


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


def test_a_number_that_is_too_small_is_named():
    config = yolox_nano.get_config()
    for field, value in (
        ("eval.every_epochs", 0),
        ("checkpoint.every_steps", -1),
        ("patience", 0),
        ("data.workers", -1),
    ):
        with config.unlocked(), pytest.raises(ValueError, match=rf"config\.{field} is {value}: give [01] or more"):
            changed = config.copy_and_resolve_references()
            changed.update_from_flattened_dict({field: value})
            from_config.check_numbers(changed)


def test_an_input_size_that_training_never_has_is_told_of(caplog):
    config = yolox_nano.get_config()
    assert from_config.multiscale(config, (416, 416), 300) and not caplog.messages
    from_config.multiscale(config, (1280, 1280), 300)
    assert "trains at heights of 320 to 640 pixels" in caplog.text and "has 1280" in caplog.text
    config.multiscale.min_units = 21
    with pytest.raises(ValueError, match="min_units is 21, more than max_units, 20"):
        from_config.multiscale(config, (416, 416), 300)
