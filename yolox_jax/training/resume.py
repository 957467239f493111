"""Checks whether a run directory has what resuming needs, and whether this config may resume its run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolox_jax import storage
from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.storage import Location
from yolox_jax.training.history import LOG, MOST_MB, read_lines
from yolox_jax.weights import aps, bucket_copy
from yolox_jax.weights.checkpoint import FOLDER, complete_steps
from yolox_jax.weights.meta import CheckpointError, Meta


def check_checkpoints(run: Location) -> None:
    """Checks that a run that has logged steps still has its checkpoints: it must not begin again over its log.

    A run that ended before its first save has a folder of checkpoints with an ap.json without APs, and may.

    Raises:
      UserError: the folder is gone, is something else, or has lost its checkpoints.
    """
    folder = run / FOLDER
    lost = _instead_of_a_folder(folder) if isinstance(folder, Path) else ""
    if not lost:
        steps = complete_steps(folder) if isinstance(folder, Path) else bucket_copy.steps(storage.list_files(run))
        if steps or not (logged := _logged(run)):
            return
        try:
            evaluated = aps.read_aps(folder)
        except CheckpointError as error:
            lost = f"has no checkpoint, and {error.what}"
        else:
            if evaluated:
                lost = f"has no checkpoint, though step {max(evaluated)} was evaluated"
            elif not storage.exists(folder / aps.NAME):
                lost = "has no checkpoint" if storage.exists(folder) else "is missing"
            else:
                print(f"{run} ended before its first save, with {logged}: it begins again")
                return
    raise UserError(
        f"{folder} {lost}; the run has {_logged(run) or 'no log'}",
        "restore it from a backup, or start over with --config.resume=false, which moves what is there to a folder",
    )


def _instead_of_a_folder(path: Path) -> str:
    if path.is_dir() or not os.path.lexists(path):
        return ""
    if path.is_symlink() and not path.exists():
        return f"is a link to {os.readlink(path)}, which does not exist"
    return "is a file, not a folder"


def _logged(run: Location) -> str:
    """Says how long the log of a run is; empty if there is none."""
    try:
        data = storage.read_bytes(run / LOG, most_mb=MOST_MB)
    except NotFoundError:
        return ""
    except OSError:
        return f"a {LOG} that cannot be read"
    steps = [line.record["step"] for line in read_lines(data)[0]]
    if not steps:
        return f"a {LOG} without a step" if data.strip() else ""
    return f"a {LOG} up to step {max(steps)}"


def check(
    meta: Meta,
    config: Mapping[str, Any],
    class_names: tuple[str, ...],
    loader: TrainLoader,
    total_steps: int,
    workdir: Location,
) -> None:
    """Checks the parts of a config that must not change within a run, and prints the other fields that differ.

    Raises:
      UserError: this config cannot resume the run. The message lists what differs.
    """
    then: dict[str, Any] = {"model": meta.model, "classes": meta.class_names, "optimizer": meta.config["optimizer"]}
    now: dict[str, Any] = {"model": config["model"], "classes": class_names, "optimizer": config["optimizer"]}
    differing = [f"{name}: {then[name]} there, {now[name]} here" for name in now if then[name] != now[name]]
    differing += loader.differences(meta.data_state)  # these would change the images of a step
    if total_steps < meta.step:
        differing.append(f"{meta.step} steps are done there, the config has {total_steps}")
    if differing:
        raise UserError(
            f"{workdir} holds a run that this config cannot resume ({'; '.join(differing)})",
            f"choose another --workdir, perhaps with --config.init_from={workdir}, or start over in this one with "
            "--config.resume=false",
        )
    _print_changes(_flat(meta.config), _flat(config))


def _print_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Prints a line for each field whose value changed, and one line for all fields that are new in this version."""
    for name in sorted(then):
        if name not in now:
            print(f"config.{name} was {then[name]}; this version has no such field")
        elif then[name] != now[name]:
            print(f"config.{name} was {then[name]} and is {now[name]} from here on")
    if added := sorted(now.keys() - then.keys()):
        print(f"new since this run began: {', '.join(f'config.{name}={now[name]}' for name in added)}")


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All fields by their full names; tuples become lists, as in the JSON of a checkpoint."""
    fields: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            fields |= _flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = list(value) if isinstance(value, tuple) else value
    return fields
