"""A table of plans, in Markdown: a row for each model and device."""

import importlib
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from ml_collections import ConfigDict

from yolox_jax.errors import UserError

MODELS = ("nano", "tiny", "s", "m", "l", "x")
DEVICES = ("T4", "L4", "A100", "H100")

HEADER = (
    "| model | device | dtype | FLOPs | memory traffic | peak memory | minimum time | bound by | images/s, at most |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
_COMPILERS = ("jax", "jax-cuda13-plugin", "nvidia-cuda-nvcc", "libtpu")


def parse_models(names: Sequence[str]) -> list[str]:
    """Checks names of models with a config of their own; "all" are those of MODELS."""
    models = list(MODELS) if list(names) == ["all"] else list(names)
    for model in models:
        if model not in MODELS:
            raise UserError(f"--table={model} is not a model", f"choose among {', '.join(MODELS)}, or all")
    return models


def config_of(model: str) -> ConfigDict:
    """Loads a config of the project."""
    return importlib.import_module(f"configs.yolox_{model}").get_config()


def row(report: dict[str, Any]) -> str:
    """Formats a report of `plan`."""
    height, width = report["input_size"]
    size = str(height) if height == width else f"{height}x{width}"
    cells = [f"{report['model']} at {size}", report["topology"].removesuffix(":1"), report["dtype"]]
    peak = f"{report['peak_bytes'] / 1e9:.2f} GB"
    if "seconds" in report:
        peak += "" if report["fits"] else ", too much"
        cells += [f"{report['flops_per_step'] / 1e9:.0f} G", f"{report['hbm_bytes_per_step'] / 1e9:.1f} GB", peak]
        milliseconds = 1e3 * report["seconds"]
        time = f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.2g}"  # not 2.2e+02
        cells += [f"{time} ms", report["bound_by"], f"{report['images_per_s_per_chip']:.0f}"]
    else:
        cells += ["", "", f"{peak}, too much", "", "", ""]
    return f"| {' | '.join(cells)} |"


def versions() -> str:
    """The versions of the compilers: "jax 0.10.2, jax-cuda13-plugin 0.10.2, Python 3.11"."""
    installed = {each.name: each.version for each in metadata.distributions()}
    found = [f"{name} {installed[name]}" for name in _COMPILERS if name in installed]
    return ", ".join([*found, f"Python {platform.python_version()}"])
