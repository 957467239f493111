"""Reports what a training step or a prediction costs on GPUs or TPU chips, without having any:

python -m yolox_jax.tools.plan --config=configs/yolox_s.py --device=A100 [--what=predict] [--batch=N|auto]
[--dtype=float32] [--json=FILE] [--config.field=value …]

A device is T4, L4, A10, A100, A100-80GB, H100, H200, RTX4090, v4, v5e, v5p, v6e or v7x; `A100:8` are eight, `v5e:2x4`
is a slice of a TPU. XLA's own compiler for the device compiles the program; that takes minutes for a large network. The
report has, for each chip: whether the program fits, its memory by kind, FLOPs, HBM traffic, collectives, and the
minimum time of a step by the chip's data sheet. A loop (as in NMS) counts as one iteration. On TPU7x, whose chips are
two devices each, the figures are those of one device.

python -m yolox_jax.tools.plan --table=all [--device=T4,A100] prints a table, a row for each model and device.
"""

import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import ConfigDict, config_flags

from yolox_jax import storage
from yolox_jax.cli.outputs import output_file
from yolox_jax.cli.terminal import quiet_libraries, run_program, user_errors
from yolox_jax.errors import UserError
from yolox_jax.models import yolox
from yolox_jax.tools.plan import table
from yolox_jax.tools.plan.chips import parse_topology
from yolox_jax.tools.plan.devices import Devices, native_dtype_of, parse_device
from yolox_jax.tools.plan.planner import plan, plan_largest
from yolox_jax.tools.plan.programs import PROGRAMS
from yolox_jax.tools.plan.report import as_text

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config to plan.", lock_config=True)
_DEVICE = flags.DEFINE_string("device", None, "The device and, after a colon, their number, such as T4, A100:8, v5e:8.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "Or a slice of a TPU, such as v5e:2x4 or v4:2x2x2.")
_WHAT = flags.DEFINE_enum("what", "train", list(PROGRAMS), "The training step, or prediction as in evaluation.")
_BATCH = flags.DEFINE_string(
    "batch",
    None,
    "Images per chip, or auto for the largest power of two or multiple of 8 that fits. By default the config's.",
)
_DTYPE = flags.DEFINE_enum("dtype", None, yolox.DTYPES, "The compute dtype; by default config.dtype.")
_TABLE = flags.DEFINE_list(
    "table",
    None,
    "Instead of a config: models for a table, such as nano,s, or all. --device may be a list, such as T4,L4.",
)
_JSON = flags.DEFINE_string("json", None, "Also writes the figures to this file as JSON.")


def main() -> None:
    jax.config.update("jax_platforms", "cpu")  # nothing runs, so no accelerator is opened
    quiet_libraries()
    with user_errors(), output_file(_JSON.value) as json_file:
        figures = _print_table(table.parse_models(_TABLE.value)) if _TABLE.value else _print_report()
        if json_file:
            storage.write_bytes(json_file, f"{json.dumps(figures, indent=2)}\n".encode())


def _print_report() -> dict[str, Any]:
    if _CONFIG.value is None:
        raise UserError("--config is missing", "give one, such as --config=configs/yolox_s.py, or --table=all")
    if (_DEVICE.value is None) == (_TOPOLOGY.value is None):
        raise UserError("neither or both of --device and --topology are given", "give one, such as --device=A100")
    devices = parse_device(_DEVICE.value) if _DEVICE.value else parse_topology(str(_TOPOLOGY.value))
    report = _plan(_CONFIG.value, devices)
    height, width = report["input_size"]
    chips = f"{devices.num_chips} {devices.unit}{'s' if devices.num_chips > 1 else ''}"
    if devices.num_devices != devices.num_chips:
        chips += f" of {devices.num_devices // devices.num_chips} devices; a chip below is one device"
    print(
        f"YOLOX-{report['model']}, {report['what']}, {height}x{width}, {report['dtype']}: "
        f"{report['batch_per_chip']} images per {devices.unit} on {devices.name} ({chips})\n"
        f"{as_text(report)}"
    )
    return report


def _print_table(models: Sequence[str]) -> list[dict[str, Any]]:
    if _CONFIG.value is not None or _TOPOLOGY.value:
        raise UserError("--table has configs of its own", "give --device, --what, --batch and --dtype with it")
    devices = [parse_device(name) for name in (_DEVICE.value or ",".join(table.DEVICES)).split(",")]
    reports: list[dict[str, Any]] = []
    for model in models:
        for each in devices:
            report = _plan(table.config_of(model), each)
            print(table.row(report) if reports else f"{table.HEADER}\n{table.row(report)}", flush=True)
            reports.append(report)
    print(f"\n({table.versions()}.)")
    return reports


def _plan(config: ConfigDict, devices: Devices) -> dict[str, Any]:
    """Plans with the flags' batch and dtype, or the config's."""
    dtype = yolox.compute_dtype(_DTYPE.value or config.dtype, jnp.dtype(native_dtype_of(devices))).name
    global_batch = config.batch_size if _WHAT.value == "train" else config.eval.batch_size
    batch_per_chip = max(global_batch // devices.num_devices, 1)
    if _BATCH.value == "auto":
        return plan_largest(config, devices, _WHAT.value, batch_per_chip, dtype)
    batch_per_chip = _parse_batch(_BATCH.value) if _BATCH.value else batch_per_chip
    return plan(config, devices, _WHAT.value, batch_per_chip, dtype)


def _parse_batch(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--batch is {text!r}", "give a number of images per chip, or auto")
    return int(text)


if __name__ == "__main__":
    run_program(main)
