"""Builds the package's objects from a ConfigDict, each in one place; below cli/ nothing knows ConfigDict."""

import dataclasses
import functools
import logging
import math
import os
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from yolox_jax.augment.draws import AugmentConfig
from yolox_jax.augment.multiscale import MultiscaleConfig
from yolox_jax.augment.occlusion import OcclusionConfig
from yolox_jax.augment.quality import QualityConfig
from yolox_jax.augment.warp import ViewConfig
from yolox_jax.cli.progress import print_progress
from yolox_jax.compiler_options import CpuKernels, choose_cpu_kernels
from yolox_jax.data.prefetch import ReadConfig, Shard
from yolox_jax.data.sources.open import open_split
from yolox_jax.data.train_loader import LoadedBatch, LoaderConfig, TrainLoader
from yolox_jax.data.views import chain
from yolox_jax.detection.anchors import STRIDES, check_size
from yolox_jax.detection.losses import LossConfig
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.errors import UserError
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.mesh import AXIS, platform_of
from yolox_jax.models import yolox
from yolox_jax.models.yolox import YOLOX
from yolox_jax.training import optim
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.step import StepConfig
from yolox_jax.types import Source

logger = logging.getLogger("yolox_jax.training")

_MOST_THREADS = 16  # that config.data.threads is by itself; beyond, worker processes gain more


def multiscale(config: ConfigDict, size_hw: tuple[int, int], schedule: Schedule) -> MultiscaleConfig | None:
    """Multi-scale sizes, or None if disabled. Warns if `size_hw`, at which evaluation runs, is not among them.

    Raises:
      UserError: min_units is above max_units.
    """
    if not config.multiscale.enabled:
        return None
    fields = {name: value for name, value in config.multiscale.items() if name not in ("enabled", "in_plain_epochs")}
    end_step = None if config.multiscale.in_plain_epochs else schedule.no_aug_step
    sizes = MultiscaleConfig(**fields, end_step=end_step)
    units = sizes.units(size_hw)
    if size_hw[0] // STRIDES[-1] not in units:
        logger.warning(
            "config.multiscale trains at heights of %d to %d pixels, but evaluation runs at config.input_size, whose "
            "height is %d: choose config.multiscale.min_units and max_units, in units of 32 pixels, around it",
            *(STRIDES[-1] * units[0], STRIDES[-1] * units[-1], size_hw[0]),
        )
    return sizes


def open_source(config: ConfigDict, split: str, *, to_train: bool = False) -> Source:
    """Opens the split "train" or "val", with its classes, the policy for bad images and, in training, a fraction of the
    images and repeat-factor sampling.

    Only `to_train`, for a source that is read by `train_loader`, does config.data.reduced_decoding apply.
    """
    progress = functools.partial(print_progress, what=f"{split}: checked")
    return chain.as_configured(
        open_split(config.data, split, check_size(config.input_size) if to_train else None),
        bad_images=config.data.bad_images,
        repeat_threshold=config.data.repeat_threshold if split == "train" else 0.0,
        classes=tuple(name.strip() for name in config.data.classes.split(",") if name.strip()),
        single_class=config.data.single_class,
        fraction=config.data.fraction if split == "train" else 1.0,
        threads=num_threads(config),
        progress=progress,
    )


def schedule(config: ConfigDict, num_images: int) -> Schedule:
    """Learning rate and switches by step. The last batch of an epoch is filled up with the first images of the next."""
    if config.batch_size < 1:
        raise UserError(f"config.batch_size is {config.batch_size}", "give 1 or more")
    return Schedule(
        base_lr=config.lr_per_image * config.batch_size,
        steps_per_epoch=math.ceil(num_images / config.batch_size),
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        no_aug_epochs=config.no_aug_epochs,
        min_lr_ratio=config.min_lr_ratio,
    )


def model(
    config: ConfigDict, num_classes: int, *, bn_axis: str | None = None, cpu_kernels: CpuKernels = "xla"
) -> YOLOX:
    """The network; `bn_axis` is the mapped axis over which BatchNorm's statistics are shared in training, if any."""
    dtype = yolox.compute_dtype(config.dtype)
    return yolox.create(config.model, num_classes, dtype, bn_axis=bn_axis, cpu_kernels=cpu_kernels)


def training_model(config: ConfigDict, num_classes: int, mesh: Mesh, num_steps: int) -> YOLOX:
    """The network of a training run of this many steps, with the kernels that a CPU computes it by."""
    kernels = choose_cpu_kernels(config.cpu_kernels, platform_of(mesh), num_steps)
    if config.parallel.kind == "pmap":  # its step is compiled without options
        kernels = "xla"
    bn_axis = AXIS if config.parallel.sync_bn else None
    return model(config, num_classes, bn_axis=bn_axis, cpu_kernels=kernels)


def optimizer(config: ConfigDict) -> Any:  # an optax.GradientTransformation, which only training/ imports
    """The optimizer, without its learning rate."""
    return optim.create(config.optimizer, momentum=config.momentum, weight_decay=config.weight_decay)


def step_config(config: ConfigDict, schedule: Schedule) -> StepConfig:
    """Everything that a training step depends on besides state and batch."""
    return StepConfig(
        schedule=schedule,
        ema_decay=config.ema_decay,
        shard_state=config.parallel.shard_state,
        assignment=sim_ota_config(config),
        loss=LossConfig(**config.loss),
        accumulate_steps=config.accumulate_steps,
        freeze=tuple(config.freeze),
        clip_grad_norm=config.clip_grad_norm,
        hsv_multiplies=config.hsv.multiplies,
    )


def sim_ota_config(config: ConfigDict) -> SimOtaConfig:
    """The parameters of SimOTA."""
    return SimOtaConfig(**config.assignment)


def detect_config(config: ConfigDict) -> DetectConfig:
    """Score threshold, NMS and test-time augmentation of evaluation."""
    try:
        return DetectConfig(**config.eval.detect)
    except UserError as error:  # Detector has these fields too, without a config
        raise UserError(f"config.eval.detect.{error.what}", error.advice) from error


def whole_image_detect_config(config: ConfigDict) -> DetectConfig:
    """As `detect_config`, for the evaluations of a training run: images are not cut. Warns if the config cuts them."""
    cut = detect_config(config)
    if cut.slices:
        logger.warning("config.eval.detect.slices is for eval.py: train.py evaluates whole images")
    return dataclasses.replace(cut, slices="")


def loader_config(config: ConfigDict, size_hw: tuple[int, int], schedule: Schedule) -> LoaderConfig:
    """Everything that the training batches depend on, besides the source."""
    return LoaderConfig(
        size_hw=size_hw,
        global_batch=config.batch_size,
        seed=config.seed,
        num_slots=config.data.max_boxes,
        augment=_augment_config(config),
        no_aug_step=schedule.no_aug_step,
        mosaic_window=config.data.mosaic_window,
    )


def num_threads(config: ConfigDict, workers: int = 0) -> int:
    """Threads that read images, in this process or each of its workers: config.data.threads; if not set, by cores."""
    if config.data.threads is not None:
        return config.data.threads
    # A container or a scheduler may leave this process few of the machine's cores.
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, max(1, num_cores // max(1, workers)))


def read_config(config: ConfigDict) -> ReadConfig:
    """Threads, worker processes and memory that prefetch the batches."""
    data = config.data
    threads = num_threads(config, data.workers)
    return ReadConfig(threads, data.workers, data.prefetch, cache_bytes=data.cache_mb << 20)


def batch_pixels(config: ConfigDict) -> int:
    """The pixels of all images of a training step at the input size."""
    return config.batch_size * math.prod(check_size(config.input_size))


def train_loader(config: ConfigDict, source: Source, schedule: Schedule, shard: Shard = Shard()) -> TrainLoader:
    """The batches of the whole run, from its first step on; `shard` selects the part of this process."""
    batches = loader_config(config, check_size(config.input_size), schedule)
    return TrainLoader(source, batches, schedule.total_steps, shard=shard, read=read_config(config))


def load_batch(config: ConfigDict, step: int) -> tuple[LoadedBatch, tuple[str, ...]]:
    """The training batch of one step, before the color shift, which the device applies, and the class names."""
    source = open_source(config, "train", to_train=True)
    batches = loader_config(config, check_size(config.input_size), schedule(config, len(source)))
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
        vertical_flip_prob=config.vertical_flip_prob,
        turn_prob=config.turn_prob,
        view=ViewConfig(config.perspective, config.crop.prob, tuple(config.crop.scale)),
        occlusion=OcclusionConfig(
            paste_prob=config.copy_paste.prob,
            paste_max_boxes=config.copy_paste.max_boxes,
            paste_scale=tuple(config.copy_paste.scale),
            cutout_prob=config.cutout.prob,
            cutout_max_holes=config.cutout.max_holes,
            cutout_scale=tuple(config.cutout.scale),
            max_hidden=config.max_hidden,
        ),
        quality=QualityConfig(
            gray_prob=config.gray_prob,
            blur_prob=config.blur.prob,
            blur_sigma=tuple(config.blur.sigma),
            jpeg_prob=config.jpeg.prob,
            jpeg_quality=tuple(config.jpeg.quality),
        ),
        hook=config.augment_hook,
    )
