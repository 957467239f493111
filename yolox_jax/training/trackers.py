"""Reports the numbers of metrics.jsonl to Weights & Biases or MLflow, if config.tracker names one."""

import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from yolox_jax.errors import UserError
from yolox_jax.training.run_directory import write_atomically

_PROJECT = "yolox_jax"
_ID_FILE = "tracker.json"  # the service's id of this run, under which a resumed run continues there


class Tracker(Protocol):
    """A run that is open at a tracking service."""

    def add(self, numbers: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def open_tracker(name: str, workdir: Path, config: Mapping[str, Any]) -> Tracker | None:
    """Starts or resumes the run of `workdir` at "wandb" or "mlflow"; returns None for the empty name.

    The services are set up as usual: `wandb login` or WANDB_MODE=offline, MLFLOW_TRACKING_URI.

    Raises:
      UserError: the name is unknown, its package is not installed, or the service refuses.
    """
    if not name:
        return None
    if name not in _TRACKERS:
        raise UserError(f"config.tracker is {name!r}", f"choose one of {', '.join(_TRACKERS)}, or leave it empty")
    try:
        return _TRACKERS[name](workdir, config)
    except Exception as error:  # each service has its own errors
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise UserError(f"config.tracker is {name}, which is not installed", f"pip install {name}") from error
        raise UserError(
            f"{name} failed to start ({error})", "correct its setup, or leave config.tracker empty"
        ) from error


class _Wandb:
    def __init__(self, workdir: Path, config: Mapping[str, Any]):
        import wandb

        run_id = _read_id(workdir) or uuid.uuid4().hex
        self._run = wandb.init(
            project=_PROJECT, name=workdir.name, id=run_id, resume="allow", dir=str(workdir), config=dict(config)
        )
        _write_id(workdir, run_id)
        # wandb's own counter would refuse the steps that a resumed run repeats.
        self._run.define_metric("*", step_metric="train_step")

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log({**numbers, "train_step": step})

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, workdir: Path, config: Mapping[str, Any]):
        import mlflow

        self._mlflow = mlflow
        run_id = _read_id(workdir)
        if run_id is None:
            mlflow.set_experiment(_PROJECT)
        run = mlflow.start_run(run_id=run_id, run_name=None if run_id else workdir.name)
        _write_id(workdir, run.info.run_id)
        if run_id is None:
            mlflow.log_dict(dict(config), "config.json")

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


_TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {"wandb": _Wandb, "mlflow": _Mlflow}


def _read_id(workdir: Path) -> str | None:
    file = workdir / _ID_FILE
    return json.loads(file.read_text())["id"] if file.exists() else None


def _write_id(workdir: Path, run_id: str) -> None:
    write_atomically(workdir / _ID_FILE, json.dumps({"id": run_id}))
