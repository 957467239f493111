"""The dataclasses of the recipe in configs/base.py, for tests that change one number."""

import dataclasses

from configs import base
from yolox_jax.augment.draws import AugmentConfig
from yolox_jax.augment.multiscale import MultiscaleConfig
from yolox_jax.cli import from_config
from yolox_jax.data.prefetch import ReadConfig
from yolox_jax.data.train_loader import LoaderConfig

_CONFIG = base.get_config()
_SCHEDULE = from_config.schedule(_CONFIG, num_images=1000)
_LOADER = from_config.loader_config(_CONFIG, tuple(_CONFIG.input_size), _SCHEDULE)


def augment_config(**changes) -> AugmentConfig:
    return dataclasses.replace(_LOADER.augment, **changes)


def loader_config(**changes) -> LoaderConfig:
    """Every step is augmented, unless `no_aug_step` is given."""
    return dataclasses.replace(_LOADER, **({"no_aug_step": None} | changes))


def read_config(**changes) -> ReadConfig:
    return dataclasses.replace(from_config.read_config(_CONFIG), **changes)


def multiscale_config(**changes) -> MultiscaleConfig:
    """The sizes change until the last step, unless `end_step` is given."""
    numbers = _CONFIG.multiscale
    return MultiscaleConfig(**({"every_steps": numbers.every_steps, "range_units": numbers.range_units} | changes))
