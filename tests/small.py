"""The quickstart with a smaller network, which is traced and compiled in a third of the time: for tests of programs.

`python -m tests.small yolox_jax.tools.NAME …` runs a tool with that network, which its name alone does not tell it.
"""

import runpy
import sys

from ml_collections import ConfigDict

from configs import quickstart
from yolox_jax.models import yolox

yolox.VARIANTS["pico"] = yolox.Variant(depth=0.0, width=0.125)


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.model = "pico"
    return config


if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
