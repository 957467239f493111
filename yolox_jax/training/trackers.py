"""Weights & Biases and MLflow, where asked for: what they are told is what metrics.jsonl has."""

import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from yolox_jax.training.run_directory import write_atomically

_PROJECT = "yolox_jax"
_ID_FILE = "tracker.json"  # by which a run that goes on is the same one there


class Tracker(Protocol):
    """An open run of a service."""

    def add(self, numbers: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def open_tracker(name: str, workdir: Path, config: Mapping[str, Any]) -> Tracker | None:
    """The run of `workdir` at "wandb" or "mlflow", begun or gone on with; None for the empty name.

    Where the service is and who one is, it learns as always: `wandb login` or WANDB_MODE=offline, MLFLOW_TRACKING_URI.

    Raises:
      ValueError: an unknown name, its package is not installed, or the service does not answer as it should.
    """
    if not name:
        return None
    if name not in _TRACKERS:
        raise ValueError(f"config.tracker is {name!r}: choose one of {', '.join(_TRACKERS)}, or none")
    try:
        return _TRACKERS[name](workdir, config)
    except ModuleNotFoundError as error:
        raise ValueError(f"config.tracker is {name}, which is not installed: pip install {name}") from error
    except Exception as error:  # each service has errors of its own
        raise ValueError(f"config.tracker is {name}, which says: {error}") from error


class _Wandb:
    def __init__(self, workdir: Path, config: Mapping[str, Any]):
        import wandb

        run_id = _known_id(workdir) or uuid.uuid4().hex
        self._run = wandb.init(
            project=_PROJECT, name=workdir.name, id=run_id, resume="allow", dir=str(workdir), config=dict(config)
        )
        _note_id(workdir, run_id)
        self._run.define_metric("*", step_metric="train_step")  # its own counter refuses steps that come again

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log({**numbers, "train_step": step})

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, workdir: Path, config: Mapping[str, Any]):
        import mlflow

        self._mlflow = mlflow
        known = _known_id(workdir)
        if known is None:
            mlflow.set_experiment(_PROJECT)
        run = mlflow.start_run(run_id=known, run_name=None if known else workdir.name)
        _note_id(workdir, run.info.run_id)
        if known is None:
            mlflow.log_dict(dict(config), "config.json")

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


_TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {"wandb": _Wandb, "mlflow": _Mlflow}


def _known_id(workdir: Path) -> str | None:
    file = workdir / _ID_FILE
    return json.loads(file.read_text())["id"] if file.exists() else None


def _note_id(workdir: Path, run_id: str) -> None:
    write_atomically(workdir / _ID_FILE, json.dumps({"id": run_id}))
