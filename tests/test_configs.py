"""Each file of configs/ describes a run that can begin, and a wrong number in it is an error that names its field."""

import dataclasses
import importlib
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import base, finetune, yolox_nano
from tests.material import ROOT
from yolox_jax.cli import from_config
from yolox_jax.detection import postprocess
from yolox_jax.detection.anchors import check_size
from yolox_jax.errors import UserError
from yolox_jax.run.prepare import prepare
from yolox_jax.training.open_directory import RunDirectory
from yolox_jax.training.profiling import StepTrace
from yolox_jax.training.run_log import RunLog
from yolox_jax.training.save_due import has_stalled

_CONFIGS = sorted(path.stem for path in ROOT.glob("configs/*.py"))


@pytest.mark.parametrize("name", _CONFIGS)
def test_a_config_describes_a_run_that_can_begin(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    size_hw = check_size(config.input_size)
    from_config.model(config, 3)
    from_config.optimizer(config)
    from_config.read_config(config)
    from_config.detect_config(config)
    schedule = from_config.schedule(config, num_images=300)
    from_config.step_config(config, schedule)
    assert schedule.total_steps == config.epochs * -(-300 // config.batch_size)
    assert from_config.loader_config(config, size_hw, schedule).no_aug_step == schedule.no_aug_step
    if multiscale := from_config.multiscale(config, size_hw, schedule):
        first = multiscale.first_uses(0, schedule.total_steps, size_hw, config.seed)
        assert all(side % 32 == 0 for size in first for side in size)


@pytest.mark.parametrize("name", ["nano", "tiny", "s", "m", "l", "x", "darknet53"])
def test_a_named_recipe_changes_the_numbers_that_base_py_gives_sources_for_and_no_others(name):
    module = importlib.import_module(f"configs.yolox_{name}")
    plain, release, large_batch = (module.get_config(recipe) for recipe in ("", "release", "large_batch"))
    small = name in ("nano", "tiny")  # these have their own sizes

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
    with pytest.raises(UserError, match="no recipe 'relase': choose one of release, large_batch, or none"):
        yolox_nano.get_config("relase")


def test_finetune_differs_from_nano_only_in_data_length_and_initial_weights():
    own, recipe = finetune.get_config(), yolox_nano.get_config()
    changed = {name for name in recipe if own[name] != recipe[name]}
    assert changed == {"init_from", "data", "epochs", "warmup_epochs", "no_aug_epochs", "batch_size", "eval"}
    assert {name for name in recipe.data if own.data[name] != recipe.data[name]} <= {
        *("root", "train", "train_images", "val", "val_images")
    }
    assert own.eval.detect == recipe.eval.detect
    # The same learning rate per image: a set of hundreds of images needs another length, not another rule.
    assert own.init_from == f"yolox_{own.model}"


def _with_parts(built: Any) -> list[Any]:
    """A dataclass and, recursively, the dataclasses in its fields."""
    values = [getattr(built, field.name) for field in dataclasses.fields(built)]
    return [built, *[part for value in values if dataclasses.is_dataclass(value) for part in _with_parts(value)]]


def test_defaults_of_dataclasses_are_the_recipe_of_base_py():
    """Whoever calls the package without a config gets the same numbers."""
    config = base.get_config()
    schedule = from_config.schedule(config, 1000)
    size_hw = check_size(config.input_size)
    roots = [from_config.detect_config(config), from_config.read_config(config)]
    roots += [from_config.multiscale(config, size_hw, schedule), from_config.step_config(config, schedule)]
    roots += [from_config.loader_config(config, size_hw, schedule)]
    by_step = {"end_step", "no_aug_step"}  # the default, None, means never
    num_compared = 0
    for built in (part for root in roots for part in _with_parts(root)):
        for field in dataclasses.fields(built):
            if field.default is not dataclasses.MISSING and field.name not in by_step:
                assert getattr(built, field.name) == field.default, f"{type(built).__name__}.{field.name}"
                num_compared += 1
    assert num_compared > 20
    in_detect = inspect.signature(postprocess.detect).parameters["num_candidates"].default
    assert in_detect == config.eval.detect.num_candidates


def test_an_input_size_that_training_never_uses_is_a_warning(caplog):
    config = yolox_nano.get_config()
    schedule = from_config.schedule(config, 300)
    assert from_config.multiscale(config, (416, 416), schedule) and not caplog.messages
    from_config.multiscale(config, (1280, 1280), schedule)
    assert "trains at heights of 320 to 640 pixels" in caplog.text and "height is 1280" in caplog.text
    config.multiscale.min_units = 21
    with pytest.raises(UserError, match="min_units is 21, more than max_units, 20"):
        from_config.multiscale(config, (416, 416), schedule)


def _build_everything(config: ConfigDict, workdir: Path) -> None:
    """Everything that train.py builds from a config before its first step."""
    prepare(config, RunDirectory(address=workdir, path=workdir))
    has_stalled({}, config.patience, 0)
    StepTrace(workdir, 0, config.profile)
    RunLog(workdir, total_steps=1, steps_per_epoch=1, batch_size=1, max_bad_steps=config.max_bad_steps, writes=False)


def _on_shapes() -> ConfigDict:
    config = yolox_nano.get_config()
    config.data.kind = "shapes"
    config.data.shapes.update({"num_train": 8, "num_val": 8})
    return config


_WRONG = [
    *[(field, 0) for field in ("batch_size", "accumulate_steps", "epochs", "max_bad_steps", "patience")],
    *[(field, 0) for field in ("log_every_steps", "data.max_boxes", "data.shapes.num_train", "data.shapes.num_val")],
    *[(f"multiscale.{name}", 0) for name in ("every_steps", "min_units", "max_units")],
    *[("assignment.num_candidates", 0), ("eval.every_epochs", 0), ("eval.batch_size", 0)],
    *[(f"eval.detect.{name}", 0) for name in ("max_detections", "num_candidates")],
    *[(f"checkpoint.{name}", 0) for name in ("every_steps", "keep_last")],
    *[(field, -1) for field in ("warmup_epochs", "no_aug_epochs", "profile", "seed", "multiscale.range_units")],
    *[(field, -1.0) for field in ("lr_per_image", "weight_decay", "min_box_side", "checkpoint.every_minutes")],
    *[(f"data.{name}", -1) for name in ("threads", "workers", "prefetch", "cache_mb", "mosaic_window")],
    *[(f"loss.{name}_weight", -1.0) for name in ("iou", "obj", "cls", "l1")],
    ("clip_grad_norm", 0.0),
    *[(f"mosaic.{name}", value) for name in ("degrees", "translate", "shear") for value in (-1.0, float("inf"))],
    *[(f"hsv.{name}", -1.0) for name in ("hue", "saturation", "value")],
    ("min_box_side", float("nan")),
    *[(field, 1.5) for field in ("mosaic.prob", "mixup.prob", "flip_prob", "data.repeat_threshold")],
    *[(f"eval.detect.{name}", 1.5) for name in ("conf", "iou")],
    *[(f"{name}.prob", 1.5) for name in ("crop", "copy_paste", "cutout", "blur", "jpeg")],
    *[(field, 1.5) for field in ("vertical_flip_prob", "turn_prob", "gray_prob", "max_hidden")],
    *[
        ("perspective", 0.25),
        ("crop.scale", (0.5, 1.5)),
        ("cutout.scale", (0.5, 0.2)),
        ("copy_paste.scale", (0.0, 1.0)),
    ],
    *[("blur.sigma", (0.0, 1.0)), ("jpeg.quality", (30, 101)), ("copy_paste.max_boxes", 0), ("cutout.max_holes", 0)],
    *[("data.fraction", value) for value in (0.0, 1.5)],
    *[("data.classes", value) for value in ("absent", "circle,circle")],
    *[("data.also", value) for value in (("datasets/more",), ({"rooot": "a"},))],
    ("augment_hook", "absent_module:function"),
    *[(f"{name}.scale", scale) for name in ("mosaic", "mixup") for scale in ((2.0, 0.5), ("a", "b"), (None, 1.0))],
]
_NAMES_OF_THINGS = (
    "model",
    "dtype",
    "cpu_kernels",
    "optimizer",
    "loss.iou_type",
    "data.kind",
    "data.bad_images",
    "eval.metric",
)


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 0, 1), (6, 0, 6), (64, 0, 16), (16, 1, 16), (16, 4, 4), (7, 3, 2), (2, 8, 1)]
)
def test_the_cores_of_the_process_are_divided_among_the_workers(monkeypatch, cores, workers, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores), raising=False)
    config = base.get_config()
    config.data.workers = workers
    assert from_config.read_config(config).threads == threads
    assert from_config.num_threads(config) == min(cores, 16)  # of an evaluation, which has no workers
    config.data.threads = 3
    assert from_config.read_config(config).threads == 3


def test_a_correct_config_can_be_built(tmp_path):
    _build_everything(_on_shapes(), tmp_path)


@pytest.mark.parametrize(("field", "value"), _WRONG)
def test_a_wrong_value_is_an_error_that_names_its_field(tmp_path, field, value):
    config = _on_shapes()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"config\.{field}\b"):
        _build_everything(config, tmp_path)


@pytest.mark.parametrize("field", _NAMES_OF_THINGS)
def test_an_unknown_name_is_an_error_that_repeats_it(tmp_path, field):
    config = _on_shapes()
    config.update_from_flattened_dict({field: "unknown"})
    with pytest.raises(UserError, match=rf"{field.split('.')[-1]}\b.*'unknown'"):
        _build_everything(config, tmp_path)
