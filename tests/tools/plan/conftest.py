"""The toy network, which compiles in a second, as the network of a config."""

import numpy as np
import pytest

from configs import yolox_nano
from tests.training import toy
from yolox_jax.tools.plan import programs


@pytest.fixture
def toy_config():
    config = yolox_nano.get_config()
    config.input_size = (toy.SIZE, toy.SIZE)
    config.num_classes = toy.NUM_CLASSES
    config.data.max_boxes = 4
    return config


@pytest.fixture
def toy_network(monkeypatch):
    """Replaces the network by the toy, which compiles in a second."""

    def create(name, num_classes, dtype, bn_axis, space_to_depth):
        assert bn_axis is None and isinstance(space_to_depth, bool)  # "auto" would ask for this machine
        assert (name, num_classes, dtype) == ("nano", toy.NUM_CLASSES, np.dtype("bfloat16"))
        return toy.MODEL

    monkeypatch.setattr(programs.yolox, "create", create)
