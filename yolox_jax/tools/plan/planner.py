"""A config and a topology to a report."""

import time
from typing import Any

from ml_collections import ConfigDict

from yolox_jax.tools.plan.chips import Topology
from yolox_jax.tools.plan.compiling import compile_for_chip, make_mesh
from yolox_jax.tools.plan.largest_fit import largest_fit
from yolox_jax.tools.plan.programs import PROGRAMS
from yolox_jax.tools.plan.report import make_report

_MAX_BATCH = 4096  # images a chip that --batch=auto tries


def plan(config: ConfigDict, topology: Topology, what: str, batch_per_chip: int, dtype: str) -> dict[str, Any]:
    """The report of one program, which this compiles."""
    program = PROGRAMS[what](config, make_mesh(topology), batch_per_chip, dtype)
    start = time.perf_counter()
    measured = compile_for_chip(program.lowered)
    report = make_report(measured, topology, batch_per_chip, program.argument_bytes)
    described = {"model": config.model, "what": what, "input_size": list(config.input_size), "dtype": dtype}
    return described | report | {"compile_seconds": time.perf_counter() - start}


def plan_largest(config: ConfigDict, topology: Topology, what: str, start: int, dtype: str) -> dict[str, Any]:
    """The report of the largest batch that fits; of the smallest where not even that does."""
    reports: dict[int, dict[str, Any]] = {}
    part = config.accumulate_steps if what == "train" else 1  # a batch is whole multiples of it

    def fits(num_parts: int) -> bool:
        reports[num_parts] = report = plan(config, topology, what, num_parts * part, dtype)
        print(f"{num_parts * part} images a chip: {report['peak_bytes'] / 1e9:.2f} GB", flush=True)
        return report["fits"]

    return reports[max(largest_fit(fits, max(start // part, 1), _MAX_BATCH // part), 1)]
