"""Kills training runs at random moments and shows that nothing is lost: python -m benchmarks.crash_test --kills=20

One run U of a short quickstart is left alone. Another is killed with SIGKILL again and again, while it starts, trains,
evaluates and saves, and started again by the same command until it ends; a third is asked to stop with SIGTERM. Their
logged losses, evaluations and final states are then compared with U's, bit for bit.
"""

import argparse
import dataclasses
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).resolve().parent.parent
_SHORT = (
    "--config.epochs=4",
    "--config.data.shapes.num_train=160",
    "--config.data.shapes.num_val=40",
    "--config.eval.every_epochs=1",
    "--config.log_every_steps=1",
    "--config.checkpoint.every_steps=3",
    "--config.mosaic.prob=0.5",
    "--config.hsv.enabled=true",
)
_STOPPED = 75  # train.py's exit code where it was asked to stop and saved
_NOT_COMPARED = ("images_per_second", "data_wait")  # speeds


@dataclasses.dataclass
class Run:
    """A run and what is known of its lives."""

    workdir: Path
    extra: tuple[str, ...] = ()
    lives: list[str] = dataclasses.field(default_factory=list)  # how each ended
    resumed_at: list[int] = dataclasses.field(default_factory=list)

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "train.py"), f"--config={ROOT / 'configs' / 'quickstart.py'}"]
        command += [f"--workdir={self.workdir}", *_SHORT, *self.extra]
        # A cache of compiled programs: 20 lives would otherwise compile 20 times.
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(self.workdir.parent / "compiled"))
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.workdir.parent,
        )

    def end(self, process: subprocess.Popen[str]) -> str:
        """Waits for the process; what it printed. Notes where it went on from and how it ended."""
        output = process.communicate()[0]
        found = re.search(r"^going on from step (\d+)", output, re.MULTILINE)
        self.resumed_at.append(int(found[1]) if found else 0)
        if process.returncode not in (0, -signal.SIGKILL, _STOPPED):
            raise SystemExit(f"{self.workdir} ended with {process.returncode}:\n{output}")
        self.lives.append({0: "finished", -signal.SIGKILL: "killed", _STOPPED: "stopped"}[process.returncode])
        return output

    def records(self) -> list[dict[str, Any]]:
        lines = (self.workdir / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in _NOT_COMPARED} for line in lines]

    def saved_steps(self) -> list[int]:
        folder = self.workdir / "checkpoints"
        return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit()) if folder.exists() else []

    def final_state(self) -> list[np.ndarray]:
        """All arrays of the last checkpoint."""
        folder = self.workdir / "checkpoints" / str(self.saved_steps()[-1])
        arrays = []
        for item in ("ema", "train"):
            with ocp.PyTreeCheckpointer() as reader:
                tree = reader.restore(folder / item)
            arrays += [np.asarray(leaf) for _, leaf in sorted(_leaves(tree))]
        return arrays


def _leaves(tree: object, path: str = "") -> list[tuple[str, object]]:
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{path}/{key}")]
    if isinstance(tree, list | tuple):
        return [leaf for index, value in enumerate(tree) for leaf in _leaves(value, f"{path}/{index}")]
    return [] if tree is None else [(path, tree)]


def run_whole(run: Run) -> tuple[float, float]:
    """Lets a run go to its end; the seconds until its first step, and from there on."""
    start = time.monotonic()
    process = run.start()
    first_step = start
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step 1/"):
            first_step = time.monotonic()
    process.wait()
    if process.returncode:
        raise SystemExit(f"{run.workdir} ended with {process.returncode}:\n{''.join(lines)}")
    run.lives.append("finished")
    run.resumed_at.append(0)
    return first_step - start, time.monotonic() - first_step


def interrupt(run: Run, number: int, num_times: int, rng: random.Random, startup: float, rest: float) -> int:
    """Sends the signal at `num_times` random moments, the run started again after each, and lets it end.

    Returns how many steps the lives lost: for SIGKILL beyond the last save, for SIGTERM at all.
    """
    num_lost = 0
    for _ in range(num_times):
        # One in five dies while it starts; the others share the training between them.
        is_early = rng.random() < 0.2
        delay = rng.uniform(0.1, startup) if is_early else startup + rng.uniform(0, 2 * rest / num_times)
        saved_before = run.saved_steps()
        process = run.start()
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        output = run.end(process)
        if saved_before:
            has_begun = "going on from step" in output
            num_lost += max(0, saved_before[-1] - run.resumed_at[-1]) if has_begun else 0
        if run.lives[-1] == "finished":
            break
        told = re.search(r"saved at step (\d+)", output)
        if told and run.saved_steps()[-1] != int(told[1]):
            num_lost += int(told[1]) - run.saved_steps()[-1]
    if run.lives[-1] != "finished":
        run.end(run.start())
    return num_lost


def compare(run: Run, whole: Run) -> dict[str, int]:
    """How many things differ between two finished runs: 0 of each is what is promised."""
    ours, theirs = run.records(), whole.records()
    by_key = {(record["step"], record.get("event")): record for record in theirs}
    keys = [(record["step"], record.get("event")) for record in ours]
    steps = [record["step"] for record in ours if "event" not in record]
    return {
        "differing records": sum(record != by_key.get(key) for record, key in zip(ours, keys, strict=True)),
        "missing records": len(set(by_key) - set(keys)),
        "doubled records": len(keys) - len(set(keys)),
        "steps out of order": sum(a >= b for a, b in itertools.pairwise(steps)),
        "differing arrays": sum(
            not np.array_equal(a, b) for a, b in zip(run.final_state(), whole.final_state(), strict=True)
        ),
        "differing checkpoints": len(set(run.saved_steps()) ^ set(whole.saved_steps())),
    }


def crash_test(folder: Path, num_kills: int, num_stops: int, seed: int) -> list[tuple[str, Run, int, dict[str, int]]]:
    """The rows of the table: how it was interrupted, the run, steps lost, differences."""
    rng = random.Random(seed)
    whole = Run(folder / "whole")
    run_whole(whole)  # compiles
    again = Run(folder / "again")
    startup, rest = run_whole(again)
    rows = [("not at all", again, 0, compare(again, whole))]
    for name, number, num_times in (("SIGKILL", signal.SIGKILL, num_kills), ("SIGTERM", signal.SIGTERM, num_stops)):
        if num_times:
            run = Run(folder / name.lower())
            num_lost = interrupt(run, number, num_times, rng, startup, rest)
            rows.append((name, run, num_lost, compare(run, whole)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="by SIGKILL")
    parser.add_argument("--stops", type=int, default=5, help="by SIGTERM")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crash test ") as folder:  # with a space, as people have them
        rows = crash_test(Path(folder), arguments.kills, arguments.stops, arguments.seed)
    columns = list(rows[0][3])
    print("interrupted by | times | lives | went on from | steps lost | " + " | ".join(columns))
    for name, run, num_lost, differences in rows:
        times = sum(life != "finished" for life in run.lives)
        numbers = " | ".join(str(differences[column]) for column in columns)
        print(f"{name} | {times} | {len(run.lives)} | {run.resumed_at} | {num_lost} | {numbers}")


if __name__ == "__main__":
    main()
