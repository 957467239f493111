"""With every augmentation on, batches are still a function of seed and step, however they are read."""

import dataclasses

import numpy as np
import pytest

from tests.data.test_train_loader import assert_same_batches, load
from tests.recipe import augment_config
from yolox_jax.data.sources.shapes import ShapesSource


def brightened(image, boxes, labels, rng):
    return image // 2 + np.uint8(rng.integers(100)), boxes, labels


_RECIPE = augment_config()
_EVERYTHING = dataclasses.replace(
    _RECIPE,
    mosaic_prob=0.7,
    vertical_flip_prob=0.5,
    turn_prob=0.5,
    view=dataclasses.replace(_RECIPE.view, perspective=0.1, crop_prob=0.5),
    occlusion=dataclasses.replace(_RECIPE.occlusion, paste_prob=0.5, cutout_prob=0.5),
    quality=dataclasses.replace(_RECIPE.quality, gray_prob=0.5, blur_prob=0.5, jpeg_prob=0.5),
    hook=f"{__name__}:brightened",
)


def test_threads_and_resuming_change_nothing():
    source = ShapesSource(10, seed=0, max_side=64)
    one = list(load(source, augment=_EVERYTHING, threads=0))
    assert_same_batches(one, load(source, augment=_EVERYTHING, threads=3, prefetch=1))
    assert_same_batches(one[3:], load(source, augment=_EVERYTHING, start_step=3))
    assert not np.array_equal(one[0].batch.images, next(load(source)).batch.images)


@pytest.mark.slow
def test_a_worker_process_changes_nothing():
    source = ShapesSource(10, seed=0, max_side=64)
    one = load(source, augment=_EVERYTHING, threads=0)
    assert_same_batches(one, load(source, augment=_EVERYTHING, threads=1, workers=1))
