"""What a check is given: how much to run, and folders."""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from yolox_jax.tools.selfcheck.report import Line

Record = Callable[[Line], None]  # keeps a line, whatever happens to the process afterwards


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is run."""

    name: str
    golden: tuple[str, ...]  # networks whose outputs are compared with the reference's
    trained: tuple[str, ...]  # networks whose training is timed
    detecting: str  # the network whose detection is timed
    side: int | None  # of the square images; None: the input size of each network's config
    first_batch: int  # images per step where the search for the largest batch begins; a power of two
    max_batch: int  # where it ends; a power of two
    detect_batch: int
    seconds: float  # of each timing
    resume_steps: int  # of the run that is killed


# Training nano comes last: of many images it compiles for minutes on a GPU.
_FULL = Size("full", ("nano", "s"), ("s", "m", "nano"), "s", None, 8, 256, 32, seconds=5.0, resume_steps=100)
_SMALL = Size("small", ("nano",), ("nano",), "nano", 64, 2, 2, 2, seconds=0.2, resume_steps=10)  # for a processor
SIZES = {size.name: size for size in (_FULL, _SMALL)}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What every check is given."""

    size: Size
    output: Path  # kept
    scratch: Path  # deleted at the end

    def config(self, name: str = "base") -> ConfigDict:
        """A config of the project, such as "yolox_s"; the input size is this setting's, if it has one."""
        config: ConfigDict = importlib.import_module(f"configs.{name}").get_config()
        if self.size.side:
            config.input_size = (self.size.side, self.size.side)
        return config
