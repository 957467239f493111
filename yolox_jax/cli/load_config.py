"""Loads a config outside a program: from a file, a name or a ConfigDict, with fields set as on the command line."""

import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from yolox_jax.cli import commands, config_values
from yolox_jax.cli.augment_preset import apply_preset
from yolox_jax.errors import UserError


def load_config(config: ConfigDict | str | Path, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns a config of its own for a run.

    Args:
      config: a ConfigDict, which is not changed, or what --config takes.
      overrides: values by the name of their field: {"data.root": "datasets/mine"} is --config.data.root=datasets/mine.
    Raises:
      UserError: there is no such file, no such field, or a value has another type than its field.
    """
    overrides = overrides or {}
    with commands.own_configs():
        if isinstance(config, ConfigDict):
            loaded = config.copy_and_resolve_references()
        else:
            file, _, argument = commands.find_config(os.fspath(config)).partition(":")
            loaded = runpy.run_path(file)["get_config"](*[argument] if argument else [])
        loaded.lock()
        for field, value in overrides.items():
            _set(loaded, field, os.fspath(value) if isinstance(value, os.PathLike) else value)
        config_values.check_numbers(loaded)
        apply_preset(loaded, overrides)
    return loaded


def _set(config: ConfigDict, field: str, value: Any) -> None:
    try:
        config.update_from_flattened_dict({field: value})
    except (KeyError, IndexError) as error:  # the text of one has all fields, and in the last line a similar one
        *_, similar = str(error.args[0]).splitlines()
        advice = similar if similar.startswith("Did you mean") else "configs/base.py has all fields"
        raise UserError(f"the config has no field {field}", advice) from error
    except TypeError as error:
        what = f"config.{field} is {value!r}, of another type"
        raise UserError(what, "configs/base.py has a value of the right type") from error
