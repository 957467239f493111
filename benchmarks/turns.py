"""Times contenders in interleaved rounds on the same cores, so that a slow minute of the machine affects all."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

OURS = "yolox_jax"  # the contender that the others are compared with

# Seconds. After PyTorch's turn, OpenMP's threads spin for 0.2 s on the cores of the next contender.
_PAUSE = 0.4
# Seconds. After a pause, calls of 15 ms in a row take up to twice as long at first (benchmarks/NOTES.md).
_WARM_UP = 0.3

Times = dict[str, list[float]]  # seconds of each round, by contender


def use_cores(num: int) -> None:
    """Pins this process to its first `num` cores. Libraries that start later use as many threads."""
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= num <= len(cores):
        raise SystemExit(f"--threads is {num}: give 1 to {len(cores)}, the cores of this process")
    os.sched_setaffinity(0, cores[:num])


def take_turns(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> Times:
    """Times each contender once per round, after a pause and untimed calls.

    A call must return only when its work is done.
    """
    times: Times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            time.sleep(_PAUSE)
            warm = time.perf_counter() + _WARM_UP
            while time.perf_counter() < warm:
                run()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def slope(amounts: Sequence[float], values: Sequence[float]) -> float:
    """Returns the slope of log(value) over log(amount) by least squares; 1 means linear growth."""
    return float(np.polyfit(np.log(amounts), np.log(values), 1)[0])


def print_times(label: str, times: Times, images: int) -> None:
    """Prints each contender's median and images per second, and for the others the ratio to our time per round."""
    for name, seconds in times.items():
        median = statistics.median(seconds)
        line = f"{label}  {name:<18}  {1000 * median:>8.1f} ms  {images / median:>7.1f} images/s"
        if name != OURS:
            ratios = [theirs / ours for theirs, ours in zip(seconds, times[OURS], strict=True)]
            line += f"  {statistics.median(ratios):>5.2f}x  ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line, flush=True)
