"""The quickstart with a smaller network, which is traced and compiled in a third of the time: for tests of programs."""

from ml_collections import ConfigDict

from configs import quickstart
from yolox_jax.models import yolox

yolox.VARIANTS["pico"] = yolox.Variant(depth=0.0, width=0.125)


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.model = "pico"
    return config
