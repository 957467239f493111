"""Whether a run can be gone on with under the config at hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.weights.checkpoint import Meta


def check(
    meta: Meta,
    config: Mapping[str, Any],
    class_names: tuple[str, ...],
    loader: TrainLoader,
    total_steps: int,
    workdir: Path,
) -> None:
    """Prints what else has changed. Raises ValueError where this config could not have begun the run, with the fields that
    differ and the ways out."""
    before: dict[str, Any] = {"model": meta.model, "classes": meta.class_names, "optimizer": meta.config["optimizer"]}
    now: dict[str, Any] = {"model": config["model"], "classes": class_names, "optimizer": config["optimizer"]}
    differing = [f"{name}: {before[name]} there, {now[name]} here" for name in now if before[name] != now[name]]
    differing += loader.differences(meta.data_state)  # by which a step would see other images
    if total_steps < meta.step:
        differing.append(f"{meta.step} steps are done there, {total_steps} are all here")
    if differing:
        raise ValueError(
            f"{workdir} holds a run that this config cannot go on with ({'; '.join(differing)}): choose another --workdir, "
            f"perhaps with --config.init_from={workdir}, or start again here with --config.resume=false"
        )
    former, present = _flat(meta.config), _flat(config)
    for name in sorted(former.keys() | present.keys()):
        if former.get(name) != present.get(name):
            print(f"config.{name} was {former.get(name)} and is {present.get(name)} from here on")


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every field by its whole name; tuples as the lists that json makes of them."""
    fields: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            fields |= _flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = list(value) if isinstance(value, tuple) else value
    return fields
