"""A run of train.py with a small state: what it writes, and resuming from it, by its own functions."""

import contextlib
import dataclasses
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import quickstart
from yolox_jax.run.loop import open_log, save
from yolox_jax.run.prepare import Run, prepare
from yolox_jax.run.train import restore
from yolox_jax.training import state
from yolox_jax.training.history import NEW
from yolox_jax.training.open_directory import opened
from yolox_jax.training.state import TrainState
from yolox_jax.weights import checkpoint

STEPS = (10, 20)  # of the checkpoints
APS = {10: 0.25, 20: 0.5}
WORKDIR = "run"
_SHAPE = (4, 5)


@dataclasses.dataclass(frozen=True)
class Resumed:
    """What resuming made of a run directory."""

    step: int
    state: TrainState  # on the host
    records: list[dict[str, Any]]  # of metrics.jsonl, once it was opened for writing
    aps: dict[int, float]
    output: str  # everything that was printed or logged


def state_of(step: int) -> TrainState:
    """Returns a state whose numbers are different at each step."""
    arrays = [np.arange(20, dtype=np.float32).reshape(_SHAPE) + 100 * step + 1000 * item for item in range(5)]
    variables = [{"params": {"kernel": arrays[item]}, "batch_stats": {"mean": arrays[item + 1]}} for item in (0, 2)]
    step_array: Any = np.int32(step)
    return TrainState(step_array, variables[0]["params"], variables[0]["batch_stats"], variables[1], arrays[4])


def write(folder: Path) -> None:
    """Writes a run directory with two checkpoints, their APs and twenty steps of metrics."""
    with _opened(folder) as run, contextlib.closing(open_log(run, NEW)) as log:
        for step in range(STEPS[-1]):
            log.write({"step": step, "loss": 2.0 - step / 16, "num_skipped": 0, "num_dropped_boxes": 0})
            if step + 1 in STEPS:
                save(run, log, _placed(step + 1), step + 1)
                log.write({"step": step, "event": "evaluation", "AP": APS[step + 1]})
                run.checkpoints.record_ap(step + 1, APS[step + 1])
        run.checkpoints.close()


def resume(folder: Path) -> Resumed:
    """Resumes as train.py does, up to its first step, and lists the checkpoints as tools.checkpoints does."""
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logging.getLogger("yolox_jax").addHandler(handler)
    with contextlib.redirect_stdout(shown), _opened(folder) as run:
        print(checkpoint.list_checkpoints(folder / WORKDIR, verify=True))
        made = mock.patch.object(state, "create", lambda *_: state_of(0))
        with made, mock.patch.object(state, "init_variables", lambda *_: state_of(0).ema):
            newest, past = restore(run)
        open_log(run, past).close()
        aps = dict(run.checkpoints.aps())
        run.checkpoints.close()
    logging.getLogger("yolox_jax").removeHandler(handler)
    print(shown.getvalue())
    lines = (folder / WORKDIR / "metrics.jsonl").read_text().splitlines()
    return Resumed(past.num_steps, jax.device_get(newest), [json.loads(line) for line in lines], aps, shown.getvalue())


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[Run]:
    with opened(folder / WORKDIR, resume=True) as directory:
        yield prepare(_config(), directory)


def _config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.shapes.update({"num_train": 16, "num_val": 8})
    return config


def _placed(step: int) -> Any:
    return jax.device_put(state_of(step))
