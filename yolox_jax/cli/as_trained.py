"""Evaluates the weights of a run as they were trained: with its network, input size, reading of images and classes."""

import logging
from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from yolox_jax.detection.anchors import check_size
from yolox_jax.weights.load import FoundWeights, read_about

_logger = logging.getLogger("yolox_jax.evaluation")
_OF_DATA = {"sixteen_bit": "full", "classes": "", "single_class": False}


def as_trained(config: ConfigDict, weights: FoundWeights, given: Collection[str]) -> ConfigDict:
    """Returns a copy of the config with the network, the input size, and from `data` sixteen_bit, classes and
    single_class of the weights' run; of a .safetensors file, what it states: the first three.

    A field that was `given` on the command line stays, with a warning if the run's differs. Prints the network and the
    input size, and each field that is the run's and not the config's. Official files state nothing.
    """
    config = config.copy_and_resolve_references()
    own = _fields_of(config.model, config)
    for field, value in _stated(weights).items():
        if value == own[field]:
            continue
        if any(name.partition("[")[0] == field for name in given):
            _logger.warning("config.%s is %s, but the run was trained with %s", field, _text(own[field]), _text(value))
        else:
            config.update_from_flattened_dict({field: value})
            print(
                f"config.{field} is {_text(value)} as in the run, not {_text(own[field])} as in the config: "
                f"to change it, give --config.{field}"
            )
    print(f"evaluating YOLOX-{config.model} at {_text(check_size(config.input_size))}", flush=True)
    return config


def _stated(weights: FoundWeights) -> dict[str, Any]:
    """Returns those of the fields that the weights have."""
    if meta := weights.meta:
        return _fields_of(meta.model, meta.config)
    if about := read_about(weights):
        return {"model": about.model, "input_size": about.size_hw, "data.sixteen_bit": about.sixteen_bit}
    return {}


def _fields_of(model: str, config: Any) -> dict[str, Any]:
    """Returns these fields of a config. A run that is older than one of `data` had its default."""
    data = {f"data.{name}": config.get("data", {}).get(name, default) for name, default in _OF_DATA.items()}
    return {"model": model, "input_size": check_size(config["input_size"]), **data}


def _text(value: Any) -> str:
    return f"{value[0]}x{value[1]}" if isinstance(value, tuple) else str(value) or "empty"
