"""Plans a program for devices: compiles it and reports its costs, for a given batch or for the largest that fits."""

import time
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from yolox_jax.detection.anchors import check_size
from yolox_jax.tools.plan.cards import Cards
from yolox_jax.tools.plan.compiling import Compiled, OutOfMemory, compile_for_chip, make_topology_mesh
from yolox_jax.tools.plan.devices import Devices
from yolox_jax.tools.plan.gpu_compiling import compile_for_cards, make_cards_mesh
from yolox_jax.tools.plan.programs import PROGRAMS, Program
from yolox_jax.tools.plan.report import make_report, memory_of

_MAX_BATCH = 4096  # images per chip: the most that --batch=auto tries
_MAX_GUESSES = 8  # of the batch at which the memory ends; then it bisects


def plan(config: ConfigDict, devices: Devices, what: str, batch_per_chip: int, dtype: str) -> dict[str, Any]:
    """Compiles one of PROGRAMS and returns its report."""
    program = PROGRAMS[what](config, make_mesh_of(devices), batch_per_chip, dtype)
    start = time.perf_counter()
    compiled = compile_for(devices, program)
    report = make_report(compiled, devices, batch_per_chip, program.argument_bytes, dtype)
    described = {"model": config.model, "what": what, "input_size": list(check_size(config.input_size)), "dtype": dtype}
    return described | report | {"compile_seconds": time.perf_counter() - start}


def make_mesh_of(devices: Devices) -> Mesh:
    """Makes a mesh of devices that are not there."""
    return make_cards_mesh(devices) if isinstance(devices, Cards) else make_topology_mesh(devices)


def compile_for(devices: Devices, program: Program) -> Compiled | OutOfMemory:
    """Compiles a program that was lowered for the mesh of these devices."""
    if isinstance(devices, Cards):
        return compile_for_cards(program.lowered, program.options)
    return compile_for_chip(program.lowered)


def plan_largest(config: ConfigDict, devices: Devices, what: str, start: int, dtype: str) -> dict[str, Any]:
    """Returns the report of the largest batch that fits; that of the smallest batch if none fits."""
    reports: dict[int, dict[str, Any]] = {}
    unit = config.accumulate_steps if what == "train" else 1  # a batch is a multiple of it

    def peak_of(batch: int) -> float:
        reports[batch] = report = plan(config, devices, what, batch, dtype)
        verdict = "fits" if report["fits"] else "does not fit"
        print(f"{batch} images per {devices.unit}: {report['peak_bytes'] / 1e9:.2f} GB, {verdict}", flush=True)
        # The TPU's compiler refuses a program shortly before the memory of the data sheet ends.
        return report["peak_bytes"] if report["fits"] else max(report["peak_bytes"], 1.001 * memory)

    # Powers of two and multiples of eight, which devices compute well.
    round_batches = [1, 2, 4, *range(8, _MAX_BATCH + 1, 8)]
    batches, memory = [batch for batch in round_batches if batch % unit == 0] or [unit], memory_of(devices)
    return reports[max(largest_batch(peak_of, batches, memory, start), batches[0])]


def largest_batch(peak_of: Callable[[int], float], batches: list[int], memory: float, start: int) -> int:
    """Finds the largest of `batches` whose peak is within `memory`, or 0 if none is.

    A trial compiles the program for minutes. Memory is nearly a constant and a share for each image, so each trial is
    where a line through the last two says that the memory ends, until two neighbors remain, of which one fits.
    """
    fitting, failing = -1, len(batches)
    peaks: dict[int, float] = {}
    trial = max((i for i, batch in enumerate(batches) if batch <= start), default=0)
    while failing - fitting > 1:
        peaks[batches[trial]] = peak = peak_of(batches[trial])
        if peak <= memory:
            fitting = trial
        else:
            failing = trial
        if len(peaks) < _MAX_GUESSES:
            estimate = _batch_of_memory(peaks, memory)
            trial = max((i for i, batch in enumerate(batches) if batch <= estimate), default=0)
            trial = min(max(trial, fitting + 1), failing - 1)
        else:
            trial = (fitting + failing) // 2
    return batches[fitting] if fitting >= 0 else 0


def _batch_of_memory(peaks: dict[int, float], memory: float) -> float:
    """Where the line through the last two trials, or through nothing and the only one, meets the memory."""
    (batch, peak), *others = list(peaks.items())[::-1]
    other, other_peak = others[0] if others else (0, 0.0)
    per_image = (peak - other_peak) / (batch - other)
    return batch + (memory - peak) / per_image if per_image > 0 else 2 * batch


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
