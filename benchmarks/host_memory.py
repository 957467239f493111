"""Measures the peak memory of a run that trains: python -m benchmarks.host_memory [--cache=DIR] …

Runs train.py with configs/finetune.py on drawn shapes: YOLOX-nano, 8 images of 416, and the eleven sizes of
multi-scale, a new one at every second step. Unless --cache names one, the compilation cache is empty, so that programs
compile beside the first steps. Prints the peak (VmHWM) as it rises, and ends with exit code 1 if it is above --most, in
GB. Needs Linux.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine

_SHORT = (
    "--config.init_from=",
    "--config.data.kind=shapes",
    "--config.data.shapes.num_train=208",  # 26 steps an epoch
    "--config.data.shapes.num_val=16",
    "--config.epochs=4",
    "--config.no_aug_epochs=1",
    "--config.multiscale.every_steps=2",
    "--config.eval.every_epochs=2",
)
_POLL_SECONDS = 0.5
_RISE = 0.1  # GB: smaller rises are not printed


def peak_gb(pid: int) -> float | None:
    """The most memory that a process has held, in GB of 10^9 bytes; None once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 / 1e9 if lines else None  # a process that is ending has none


def measure(arguments: list[str], cache: str | None) -> float:
    """Runs train.py to its end, and returns its peak."""
    with tempfile.TemporaryDirectory(prefix="memory") as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache or f"{folder}/cache"}
        command = [sys.executable, "train.py", "--config=configs/finetune.py", f"--workdir={folder}/run", *arguments]
        start, peak, printed = time.perf_counter(), 0.0, 0.0
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None:
            peak = max(peak, peak_gb(process.pid) or 0.0)
            if peak > printed + _RISE:
                printed = peak
                print(f"{time.perf_counter() - start:>6.0f} s  {peak:.2f} GB", flush=True)
            time.sleep(_POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"train.py ended with exit code {process.returncode}")
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=4.0, help="GB of 10^9 bytes")
    parser.add_argument("--cache", help="the folder of a compilation cache, which is kept")
    arguments, config = parser.parse_known_args()  # the rest are fields of the config
    machine.describe()
    peak = measure([*_SHORT, *config], arguments.cache)
    print(f"peak: {peak:.2f} GB")
    sys.exit(peak > arguments.most)


if __name__ == "__main__":
    main()
