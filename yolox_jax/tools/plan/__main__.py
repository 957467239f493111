"""python -m yolox_jax.tools.plan --config=configs/yolox_s.py --topology=v5e:2x4 [--what=predict] [--batch=N|auto]
[--dtype=float32] [--json=FILE] [--config.field=value …]

What a training step, or a prediction, costs on TPU chips, without one: the program is compiled for them by libtpu, which
takes minutes for a large network. Printed for each chip: whether it fits, memory by kind, FLOPs, HBM traffic, what the chips
exchange, and from the chip's data sheet the least time a step can take. A loop of unknown length (NMS) is counted once.
"""

import json
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from yolox_jax.cli.terminal import make_parent_dirs, quiet_libraries, run_program, user_errors
from yolox_jax.tools.plan.chips import parse_topology
from yolox_jax.tools.plan.compiling import LibtpuMissing
from yolox_jax.tools.plan.planner import plan, plan_largest
from yolox_jax.tools.plan.programs import PROGRAMS
from yolox_jax.tools.plan.report import as_text

_CONFIG = config_flags.DEFINE_config_file("config", None, "What is trained: a file of configs/.", lock_config=True)
_TOPOLOGY = flags.DEFINE_string("topology", None, "The slice, as generation:chips: v5e:2x4, v4:2x2x2.")
_WHAT = flags.DEFINE_enum("what", "train", list(PROGRAMS), "The training step, or prediction as in evaluation.")
_BATCH = flags.DEFINE_string("batch", None, "Images a chip, or auto: as many as fit. The config's by default.")
_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "Of the network's computation.")
_JSON = flags.DEFINE_string("json", None, "Where the figures are written as json too.")


def main() -> None:
    jax.config.update("jax_platforms", "cpu")  # nothing is run, so no accelerator is to be taken
    quiet_libraries()
    with user_errors():
        make_parent_dirs(_JSON.value)
        topology = parse_topology(str(_TOPOLOGY.value))
        config = _CONFIG.value
        global_batch = config.batch_size if _WHAT.value == "train" else config.eval.batch_size
        batch_per_chip = max(global_batch // topology.num_chips, 1)
        try:
            if _BATCH.value == "auto":
                report = plan_largest(config, topology, _WHAT.value, batch_per_chip, _DTYPE.value)
            else:
                batch_per_chip = _parse_batch(_BATCH.value) if _BATCH.value else batch_per_chip
                report = plan(config, topology, _WHAT.value, batch_per_chip, _DTYPE.value)
        except LibtpuMissing as error:
            sys.exit(f"error: {error}")
        height, width = report["input_size"]
        print(
            f"YOLOX-{report['model']}, {report['what']}, {height}x{width}, {report['dtype']}: "
            f"{report['batch_per_chip']} images a chip, {topology.name} ({topology.num_chips} chip(s))\n"
            f"{as_text(report)}"
        )
        if _JSON.value:
            Path(_JSON.value).write_text(json.dumps(report, indent=2) + "\n")


def _parse_batch(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--batch is {text!r}: a number of images a chip, or auto")
    return int(text)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "topology"])
    run_program(main)
