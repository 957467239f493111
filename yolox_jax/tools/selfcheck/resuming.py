"""Kills a training run and resumes it: its losses and its final state must be those of a run that was not killed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolox_jax.cli import from_config
from yolox_jax.cli.commands import ROOT
from yolox_jax.data.sources import shapes
from yolox_jax.mesh import make_mesh, place
from yolox_jax.models import yolox
from yolox_jax.tools.selfcheck.report import Line, verdict
from yolox_jax.tools.selfcheck.setting import Record, Setting
from yolox_jax.training import state
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.weights.official import abstract_variables

_BATCH = 16  # of the run: divides over 1, 2, 4, 8 or 16 devices, since train.py takes all
_NUM_SAVES = 5
_NOT_COMPARED = ("images_per_second", "data_wait", "time", "num_programs")  # differ between equal runs


def check(setting: Setting, record: Record) -> None:
    """Runs train.py three times: whole, until it is killed, and again.

    This process keeps away from the accelerator, which may belong to one process at a time.
    """
    jax.config.update("jax_platforms", "cpu")
    whole, killed = (setting.scratch / name for name in ("whole", "killed"))
    _train(setting, whole)
    was_killed = _train(setting, killed, kill_after_save=True)
    if not was_killed:
        record(Line("kill and resume", "FAIL", "the run ended before it could be killed"))
        return
    resumed_at = Checkpoints(killed).steps()[-1]
    _train(setting, killed)

    ours, theirs = _records(killed), _records(whole)
    num_other = len(ours.keys() ^ theirs.keys())
    differing = sorted(step for step in ours.keys() & theirs.keys() if ours[step] != theirs[step])
    num_bits, num_all = _differing_bits(_final_state(setting, killed), _final_state(setting, whole))
    text = (
        f"killed, resumed at step {resumed_at} of {setting.size.resume_steps}: {num_bits} of {num_all} bits of the "
        f"final state differ from a run that was not killed; {len(differing)} steps have other metrics, "
        f"{num_other} are missing or extra"
    )
    if differing and differing[0] < resumed_at:
        text += f"; the runs differ from step {differing[0]} on, before the kill: this device does not repeat a run"
    figures = {"resumed_at": resumed_at, "differing_bits": num_bits, "bits": num_all, "differing_steps": differing}
    record(Line("kill and resume", verdict(not num_bits and not differing and not num_other), text, figures))


def _arguments(setting: Setting, workdir: Path) -> list[str]:
    """The quickstart, shortened to one epoch of `resume_steps` steps."""
    fields = {
        "batch_size": _BATCH,
        "input_size": "(64, 64)",
        "data.shapes.num_train": _BATCH * setting.size.resume_steps,
        "data.shapes.num_val": _BATCH,
        "eval.batch_size": _BATCH,
        "epochs": 1,
        "warmup_epochs": 0,
        "no_aug_epochs": 0,
        "log_every_steps": 1,
        "checkpoint.every_steps": setting.size.resume_steps // _NUM_SAVES,
        "parallel.coordinator": "none",
    }
    overrides = [f"--config.{field}={value}" for field, value in fields.items()]
    return [f"--config={ROOT / 'configs' / 'quickstart.py'}", f"--workdir={workdir}", *overrides]


def _train(setting: Setting, workdir: Path, kill_after_save: bool = False) -> bool:
    """Runs train.py to its end, or kills it at the first step that it reports after a save. Returns if it was killed.

    Raises:
      CalledProcessError: it failed.
    """
    command = [sys.executable, str(ROOT / "train.py"), *_arguments(setting, workdir)]
    was_killed = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=setting.scratch) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if kill_after_save and not was_killed and line.startswith("step ") and Checkpoints(workdir).steps():
                process.kill()
                was_killed = True
    if process.returncode and not was_killed:
        raise subprocess.CalledProcessError(process.returncode, command)
    return was_killed


def _records(workdir: Path) -> dict[int, dict[str, Any]]:
    """What was logged of each step."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        record["step"]: {key: value for key, value in record.items() if key not in _NOT_COMPARED}
        for record in records
        if "event" not in record
    }


def _final_state(setting: Setting, workdir: Path) -> list[np.ndarray]:
    """All arrays of the last checkpoint."""
    config, mesh = setting.config("quickstart"), make_mesh(1)
    optimizer, model = from_config.optimizer(config), from_config.model(config, len(shapes.CLASS_NAMES))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_variables(model))
    like = place(state.create(variables, optimizer, yolox.compute_dtype(config.dtype)), mesh)
    restored = Checkpoints(workdir).restore_latest(like, check=lambda meta: None)
    assert restored is not None
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored[0])]


def _differing_bits(ours: list[np.ndarray], theirs: list[np.ndarray]) -> tuple[int, int]:
    """The number of bits that differ, and of all bits."""
    pairs = [(np.ascontiguousarray(a), np.ascontiguousarray(b)) for a, b in zip(ours, theirs, strict=True)]
    changed = [np.bitwise_xor(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8)) for a, b in pairs]
    return sum(int(np.bitwise_count(each).sum()) for each in changed), 8 * sum(a.nbytes for a, _ in pairs)
