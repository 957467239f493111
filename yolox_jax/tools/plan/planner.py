"""Plans a program for a slice: compiles it and reports its costs, for a given batch or for the largest that fits."""

import time
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from yolox_jax.detection.anchors import check_size
from yolox_jax.tools.plan.chips import Topology
from yolox_jax.tools.plan.compiling import compile_for_chip, make_topology_mesh
from yolox_jax.tools.plan.programs import PROGRAMS
from yolox_jax.tools.plan.report import make_report

_MAX_BATCH = 4096  # images per chip: the most that --batch=auto tries


def plan(config: ConfigDict, topology: Topology, what: str, batch_per_chip: int, dtype: str) -> dict[str, Any]:
    """Compiles one of PROGRAMS and returns its report."""
    program = PROGRAMS[what](config, make_topology_mesh(topology), batch_per_chip, dtype)
    start = time.perf_counter()
    compiled = compile_for_chip(program.lowered)
    report = make_report(compiled, topology, batch_per_chip, program.argument_bytes)
    described = {"model": config.model, "what": what, "input_size": list(check_size(config.input_size)), "dtype": dtype}
    return described | report | {"compile_seconds": time.perf_counter() - start}


def plan_largest(config: ConfigDict, topology: Topology, what: str, start: int, dtype: str) -> dict[str, Any]:
    """Returns the report of the largest batch that fits; that of the smallest batch if none fits."""
    reports: dict[int, dict[str, Any]] = {}
    unit = config.accumulate_steps if what == "train" else 1  # a batch is a multiple of it

    def fits(num_units: int) -> bool:
        reports[num_units] = report = plan(config, topology, what, num_units * unit, dtype)
        verdict = "fits" if report["fits"] else "does not fit"
        print(f"{num_units * unit} images per chip: {report['peak_bytes'] / 1e9:.2f} GB, {verdict}", flush=True)
        return report["fits"]

    return reports[max(largest_fit(fits, max(start // unit, 1), _MAX_BATCH // unit), 1)]


def largest_fit(fits: Callable[[int], bool], start: int, limit: int) -> int:
    """Finds the largest n in [1, limit] with `fits(n)`, or 0 if there is none: doubles from `start`, then bisects.

    Assumes that every number below one that fits also fits.
    """
    fitting, failing = 0, limit + 1
    trial = min(start, limit)
    while failing - fitting > 1:
        if fits(trial):
            fitting = trial
        else:
            failing = trial
        trial = min(2 * fitting, limit) if failing > limit else (fitting + failing) // 2
    return fitting
