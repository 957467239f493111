"""The batch of a training step, for those who want to look at it."""

import jax
import numpy as np
from ml_collections import ConfigDict

from yolox_jax.augment.colour import shift_content
from yolox_jax.data.pipeline import LoadedBatch, TrainLoader
from yolox_jax.detection.anchors import check_size
from yolox_jax.tools import from_config
from yolox_jax.types import Batch


def load(config: ConfigDict, step: int) -> tuple[LoadedBatch, tuple[str, ...]]:
    """The batch that training sees at a step, colour shift still to be done, and the class names."""
    source = from_config.open_source(config, "train")
    loader_config = from_config.loader_config(config, check_size(config.input_size), len(source))
    with TrainLoader(source, loader_config, step + 1, start_step=step, read=from_config.read_config(config)) as loader:
        return next(loader), source.class_names


def first_shifted(loaded: LoadedBatch, max_images: int) -> Batch:
    """The first images of a batch, with their colours shifted as the device will do."""
    batch = jax.tree.map(lambda x: x[:max_images], loaded.batch)
    if batch.hsv_shift is None:
        return batch
    images_BHW3 = np.asarray(jax.vmap(shift_content)(batch.images, batch.hsv_shift, batch.content_hw), np.uint8)
    return batch.replace(images=images_BHW3, hsv_shift=None, content_hw=None)
