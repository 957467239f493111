"""Checks whether this config may resume the run in a directory."""

from collections.abc import Mapping
from typing import Any

from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.errors import UserError
from yolox_jax.storage import Location
from yolox_jax.weights.checkpoint import Meta


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
