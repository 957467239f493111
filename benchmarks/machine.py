"""Prints the machine, the versions and the load of other programs; refuses to compare times beside them."""

import argparse
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

_MOST_LOAD = 0.5  # cores: beside more, the ratios of rounds scatter
_SECONDS = 1.0  # for which the load is observed
_PACKAGES = ("jax", "jaxlib", "numpy", "opencv-python-headless", "torch", "onnxruntime")
_STAT, _CPU_INFO = Path("/proc/stat"), Path("/proc/cpuinfo")
_IDLE, _GUEST = slice(3, 5), slice(8, 10)  # columns of /proc/stat: idle and iowait; guests, which count as user too


def parse_quiet(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the arguments of a benchmark that compares times, and begins it: prints `describe`.

    Ends the program if other programs use the processor, unless --despite-load is given.
    """
    parser.add_argument("--despite-load", action="store_true", help="measures beside other programs all the same")
    arguments = parser.parse_args()
    load = describe()
    if load is not None and load > _MOST_LOAD and not arguments.despite_load:
        raise SystemExit(
            f"other programs use {load:.1f} cores, more than {_MOST_LOAD}, so times cannot be compared: "
            "end them, or give --despite-load"
        )
    return arguments


def check_given(
    parser: argparse.ArgumentParser, given: argparse.Namespace, needed: Mapping[str, Sequence[str]]
) -> None:
    """Ends the program if an argument is missing that `given.action` needs; `needed` has their names by action."""
    for name in needed[given.action]:
        if getattr(given, name) is None:
            parser.error(f"{given.action} needs --{name}")


def describe() -> float | None:
    """Prints what this runs on, after observing it for a second. Returns the load of others, in cores."""
    load = load_of_others()
    shown = "unknown" if load is None else f"{load:.1f} of {os.cpu_count()} cores"
    print(f"{_processor()}; {platform.system()} {platform.machine()}, Python {platform.python_version()}")
    print(f"{', '.join(_versions())}; load of other programs: {shown}", flush=True)
    return load


def load_of_others() -> float | None:
    """Returns how many cores other processes of this machine use, on average of a second; None if it has no /proc.

    Time that a hypervisor took from this machine counts as used by others.
    """
    if not _STAT.exists():
        return None
    start, busy, own = time.perf_counter(), busy_seconds(_STAT.read_text()), _own_seconds()
    time.sleep(_SECONDS)
    used = (busy_seconds(_STAT.read_text()) - busy) - (_own_seconds() - own)
    return max(0.0, used / (time.perf_counter() - start))


def busy_seconds(stat: str) -> float:
    """Returns the processor time used by everyone since the machine started, from the text of /proc/stat."""
    ticks = [int(each) for each in stat.partition("\n")[0].split()[1:]]
    return (sum(ticks) - sum(ticks[_IDLE]) - sum(ticks[_GUEST])) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])  # of this process and its ended children


def _processor() -> str:
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    vectors = [name for name in ("avx2", "avx512f", "amx_tile") if name in fields.get("flags", "").split()]
    cores = f"{len(os.sched_getaffinity(0))} cores" if hasattr(os, "sched_getaffinity") else f"{os.cpu_count()} cores"
    return ", ".join([fields.get("model name") or platform.processor() or "unknown processor", cores, *vectors])


def _versions() -> list[str]:
    installed = {each.name: each.version for each in metadata.distributions()}
    return [f"{name} {installed[name]}" for name in _PACKAGES if name in installed]
