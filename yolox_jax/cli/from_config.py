"""The parts of a config that several programs need, as what the code inward takes."""

import functools
import logging
import math

from ml_collections import ConfigDict

from yolox_jax.augment.draws import AugmentConfig
from yolox_jax.augment.multiscale import MultiscaleConfig
from yolox_jax.cli.terminal import print_progress
from yolox_jax.data.prefetch import ReadConfig
from yolox_jax.data.sources.open import open_split
from yolox_jax.data.train_loader import LoadedBatch, LoaderConfig, TrainLoader
from yolox_jax.data.views import bad_images
from yolox_jax.data.views.repeat_factor import RepeatedSource
from yolox_jax.detection.anchors import check_size
from yolox_jax.detection.losses import LossConfig
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.step import StepConfig
from yolox_jax.types import Source

logger = logging.getLogger("yolox_jax.training")

# What counts or divides; None, where a field may be None, means never.
_AT_LEAST_ONE = (
    *("batch_size", "epochs", "accumulate_steps", "max_bad_steps", "patience", "log_every_steps"),
    *("data.threads", "data.prefetch", "data.max_boxes", "data.shapes.num_train", "data.shapes.num_val"),
    *("multiscale.every_steps", "multiscale.min_units", "multiscale.max_units", "assignment.num_candidates"),
    *("eval.every_epochs", "eval.batch_size", "eval.detect.max_detections", "eval.detect.num_candidates"),
    *("checkpoint.every_steps", "checkpoint.keep_last"),
)
_AT_LEAST_ZERO = (
    *("warmup_epochs", "no_aug_epochs", "lr_per_image", "weight_decay", "min_box_side", "profile"),
    *("data.workers", "data.cache_mb", "data.mosaic_window", "multiscale.range_units", "checkpoint.every_minutes"),
)


def check_numbers(config: ConfigDict) -> None:
    """Raises a ValueError for a number that is less than its field can be."""
    for least, fields in ((1, _AT_LEAST_ONE), (0, _AT_LEAST_ZERO)):
        for field in fields:
            value = functools.reduce(getattr, field.split("."), config)
            if value is not None and value < least:
                raise ValueError(f"config.{field} is {value}: give {least} or more")


def multiscale(config: ConfigDict, size_hw: tuple[int, int], num_images: int) -> MultiscaleConfig | None:
    """The sizes that training on `num_images` changes between; None where it does not. Warns where the input's is none.

    Raises:
      ValueError: there are none.
    """
    if not config.multiscale.enabled:
        return None
    fields = {name: value for name, value in config.multiscale.items() if name not in ("enabled", "in_plain_epochs")}
    end_step = None if config.multiscale.in_plain_epochs else schedule(config, num_images).no_aug_step
    sizes = MultiscaleConfig(**fields, end_step=end_step)
    units = sizes.units(size_hw)
    if not units:
        raise ValueError(f"config.multiscale.min_units is {units.start}, more than max_units, {units.stop - 1}")
    if size_hw[0] // 32 not in units:
        logger.warning(
            "config.multiscale trains at heights of %d to %d pixels, config.input_size, at which is evaluated, has %d: "
            "set config.multiscale.min_units and max_units, in units of 32 pixels, around it",
            *(32 * units[0], 32 * units[-1], size_hw[0]),
        )
    return sizes


def open_source(config: ConfigDict, split: str) -> Source:
    """The split "train" or "val", bad images dealt with and rare classes repeated in training as the config says."""
    progress = functools.partial(print_progress, what=f"{split}: checked")
    source = open_split(config.data, split)
    source = bad_images.apply_policy(source, config.data.bad_images, config.data.threads, progress)
    if split == "train" and config.data.repeat_threshold:
        source = RepeatedSource(source, config.data.repeat_threshold)
    return source


def schedule(config: ConfigDict, num_images: int) -> Schedule:
    """What changes over the steps, for a training set of `num_images`; an epoch's last batch begins the next."""
    return Schedule(
        base_lr=config.lr_per_image * config.batch_size,
        steps_per_epoch=math.ceil(num_images / config.batch_size),
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        no_aug_epochs=config.no_aug_epochs,
        min_lr_ratio=config.min_lr_ratio,
    )


def step_config(config: ConfigDict, num_images: int) -> StepConfig:
    """What a training step depends on besides state and batch, for a training set of `num_images`."""
    return StepConfig(
        schedule=schedule(config, num_images),
        ema_decay=config.ema_decay,
        shard_state=config.parallel.shard_state,
        assignment=SimOtaConfig(**config.assignment),
        loss=LossConfig(**config.loss),
        accumulate_steps=config.accumulate_steps,
        freeze=tuple(config.freeze),
        clip_grad_norm=config.clip_grad_norm,
        hsv_multiplies=config.hsv.multiplies,
    )


def loader_config(config: ConfigDict, size_hw: tuple[int, int], num_images: int) -> LoaderConfig:
    """Which training batches, of a set of `num_images`."""
    return LoaderConfig(
        size_hw=size_hw,
        global_batch=config.batch_size,
        seed=config.seed,
        num_slots=config.data.max_boxes,
        augment=_augment_config(config),
        plain_from_step=schedule(config, num_images).no_aug_step,
        mosaic_window=config.data.mosaic_window,
    )


def read_config(config: ConfigDict) -> ReadConfig:
    """How they are read ahead."""
    data = config.data
    return ReadConfig(data.threads, data.workers, data.prefetch, cache_bytes=data.cache_mb << 20)


def load_batch(config: ConfigDict, step: int) -> tuple[LoadedBatch, tuple[str, ...]]:
    """The batch that training sees at a step, colour shift still to be done, and the class names."""
    source = open_source(config, "train")
    batches = loader_config(config, check_size(config.input_size), len(source))
    with TrainLoader(source, batches, step + 1, start_step=step, read=read_config(config)) as loader:
        return next(loader), source.class_names


def _augment_config(config: ConfigDict) -> AugmentConfig:
    mosaic, mixup, hsv = config.mosaic, config.mixup, config.hsv
    return AugmentConfig(
        mosaic_prob=mosaic.prob,
        degrees=mosaic.degrees,
        translate=mosaic.translate,
        scale=tuple(mosaic.scale),
        shear=mosaic.shear,
        mixup_prob=mixup.prob,
        mixup_scale=tuple(mixup.scale),
        flip_prob=config.flip_prob,
        hsv=(hsv.hue, hsv.saturation, hsv.value) if hsv.enabled else None,
        hsv_multiplies=hsv.multiplies,
        min_box_side=config.min_box_side,
    )
