"""Kills training runs at random moments and shows that nothing is lost: python -m benchmarks.crash_test --kills=20

One run U of a short quickstart is left alone. Another is killed with SIGKILL again and again, while it starts, trains,
evaluates and saves (every third step), and started again by the same command until it ends; a third is asked to stop with
SIGTERM. Their logged losses, evaluations, TensorBoard files and final states are then compared with U's, bit for bit.
"""

import argparse
import dataclasses
import itertools
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from tensorboardX.proto.event_pb2 import Event

ROOT = Path(__file__).resolve().parent.parent
SHORT = (
    "--config.epochs=4",
    "--config.data.shapes.num_train=160",
    "--config.data.shapes.num_val=40",
    "--config.eval.every_epochs=1",
    "--config.log_every_steps=1",
    "--config.checkpoint.every_steps=3",
    "--config.mosaic.prob=0.5",
    "--config.hsv.enabled=true",
)
_STEPS_PER_EPOCH = 20
_PATIENCE = 900  # seconds until a life that does not end is a hanging one
_STOPPED = 75  # train.py's exit code where it was asked to stop and saved
_NOT_COMPARED = ("images_per_second", "data_wait", "time", "num_programs")  # of each life, not of the run


@dataclasses.dataclass
class Life:
    """One start of the program and its end."""

    end: str  # "finished", "killed" or "stopped"
    phase: str  # what it was doing when it was interrupted
    resumed_at: int  # step
    saved_at: int | None  # the step it said it saved before it stopped
    seconds_to_end: float  # from the signal


def read_events(file: Path) -> Iterator[Event]:
    """The events of a TensorBoard file."""
    content, place = file.read_bytes(), 0
    while place < len(content):  # TFRecord: length, its checksum, as many bytes, their checksum
        (length,) = struct.unpack_from("<Q", content, place)
        yield Event.FromString(content[place + 12 : place + 12 + length])
        place += length + 16


@dataclasses.dataclass
class Run:
    """A run and its lives."""

    workdir: Path
    config: tuple[str, ...]
    lives: list[Life] = dataclasses.field(default_factory=list)

    def live(self, number: int | None = None, num_reports: int | None = None, delay: float = 0.0) -> Life:
        """Starts the program and waits for its end; sends the signal `delay` seconds after so many reported steps."""
        command = [sys.executable, str(ROOT / "train.py"), f"--config={ROOT / 'configs' / 'quickstart.py'}"]
        command += [f"--workdir={self.workdir}", *self.config]
        # A cache of compiled programs: 20 lives would otherwise compile 20 times.
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(self.workdir.parent / "compiled"))
        with subprocess.Popen(
            command,
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.workdir.parent,
        ) as process:
            assert process.stdout is not None
            reader = _Reader(process.stdout)
            phase, sent = "", time.monotonic()
            if number is not None:
                if num_reports is not None:
                    reader.wait_for_reports(num_reports)
                reader.ended.wait(delay)
                phase, sent = reader.phase, time.monotonic()
                process.send_signal(number)
            if not reader.ended.wait(_PATIENCE):
                process.kill()
                raise SystemExit(f"{self.workdir} hangs:\n{''.join(reader.lines)}")
        seconds = time.monotonic() - sent
        output = "".join(reader.lines)
        ends = {0: "finished", -signal.SIGKILL: "killed", -signal.SIGTERM: "killed", _STOPPED: "stopped"}
        if process.returncode not in ends:
            raise SystemExit(f"{self.workdir} ended with {process.returncode}:\n{output}")
        if ends[process.returncode] == "finished":
            phase = "finished"
        resumed = re.search(r"^resuming from step (\d+)", output, re.MULTILINE)
        saved = re.search(r"saved at step (\d+)", output)
        life = Life(
            ends[process.returncode],
            phase,
            int(resumed[1]) if resumed else 0,
            int(saved[1]) if saved else None,
            seconds,
        )
        self.lives.append(life)
        return life

    def records(self) -> list[dict[str, Any]]:
        lines = (self.workdir / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in _NOT_COMPARED} for line in lines]

    def events(self) -> list[tuple[int, str, float, bytes]]:
        """All that the TensorBoard files show: step, name, value, picture."""
        found = []
        for path in sorted((self.workdir / "tensorboard").iterdir()):
            for event in read_events(path):
                found += [
                    (event.step, value.tag, value.simple_value, value.image.encoded_image_string)
                    for value in event.summary.value
                ]
        return [each for each in found if each[1].partition("/")[2] not in _NOT_COMPARED]

    def saved_steps(self) -> list[int]:
        folder = self.workdir / "checkpoints"
        return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit()) if folder.exists() else []

    def best_step(self) -> int:
        aps = json.loads((self.workdir / "checkpoints" / "ap.json").read_text())
        return int(max(aps, key=lambda step: (aps[step], int(step))))

    def final_state(self) -> list[np.ndarray]:
        """All arrays of the last checkpoint."""
        folder = self.workdir / "checkpoints" / str(self.saved_steps()[-1])
        arrays = []
        for item in ("ema", "raw", "train"):
            with ocp.PyTreeCheckpointer() as reader:
                stored = reader.metadata(folder / item).item_metadata.tree
                as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
                tree = reader.restore(folder / item, restore_args=as_numpy)
            arrays += [np.asarray(leaf) for _, leaf in sorted(_leaves(tree))]
        return arrays


def _leaves(tree: object, path: str = "") -> list[tuple[str, object]]:
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{path}/{key}")]
    if isinstance(tree, list | tuple):
        return [leaf for index, value in enumerate(tree) for leaf in _leaves(value, f"{path}/{index}")]
    return [] if tree is None else [(path, tree)]


class _Reader(threading.Thread):
    """Reads what a program prints, and knows from it what the program does."""

    def __init__(self, stream: IO[str]):
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self.phase = "starting"
        self.ended = threading.Event()
        self._stream = stream
        self._reports = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        for line in self._stream:
            self.lines.append(line)
            if found := re.match(r"step (\d+)/", line):
                self.phase = "evaluating" if int(found[1]) % _STEPS_PER_EPOCH == 0 else "training"
                self._reports.release()
            elif line.startswith("AP "):
                self.phase = "training"
        for _ in range(1000):
            self._reports.release()  # nobody waits for what will not come
        self.ended.set()

    def wait_for_reports(self, num_reports: int) -> None:
        for _ in range(num_reports):
            self._reports.acquire()


def interrupt(run: Run, number: int, num_times: int, rng: random.Random, total_steps: int) -> int:
    """Sends the signal at `num_times` random moments, the run started again after each, and lets it end.

    Returns how many steps the lives lost: for SIGKILL beyond the last save, for SIGTERM at all.
    """
    num_lost = 0
    for life_number in range(num_times):
        saved = run.saved_steps()
        steps_left = total_steps - (saved[-1] if saved else 0)
        if life_number % 7 == 2:  # while it starts
            life = run.live(number, None, rng.uniform(0.1, 10.0))
        elif life_number % 7 == 1:  # while it evaluates, at the end of the epoch
            life = run.live(number, 1 + (steps_left - 1) % _STEPS_PER_EPOCH, rng.uniform(0.0, 0.5))
        else:  # the others share the training between them; saves lie within the delay
            share = 2 * steps_left // (num_times - life_number)
            life = run.live(number, rng.randint(1, max(1, min(steps_left, share))), rng.uniform(0.0, 1.5))
        if saved and life.phase != "starting":
            num_lost += max(0, saved[-1] - life.resumed_at)
        if life.saved_at is not None:
            num_lost += life.saved_at - run.saved_steps()[-1]
    while run.lives[-1].end != "finished":
        run.live()
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
        "differing TensorBoard numbers": abs(len(run.events()) - len(whole.events()))
        + sum(a != b for a, b in zip(run.events(), whole.events(), strict=False)),
        "differing arrays": sum(
            not np.array_equal(a, b) for a, b in zip(run.final_state(), whole.final_state(), strict=True)
        ),
        "differing best checkpoints": int(run.best_step() != whole.best_step()),
        "differing checkpoints": len(set(run.saved_steps()) ^ set(whole.saved_steps())),
    }


def crash_test(
    folder: Path, num_kills: int, num_stops: int, seed: int, config: tuple[str, ...] = SHORT
) -> list[tuple[str, Run, int, dict[str, int]]]:
    """The rows of the table: how it was interrupted, the run, steps lost, differences."""
    rng = random.Random(seed)
    whole = Run(folder / "whole", config)
    whole.live()
    total_steps = 1 + max(record["step"] for record in whole.records())
    rows = []
    for name, number, num_times in (("SIGKILL", signal.SIGKILL, num_kills), ("SIGTERM", signal.SIGTERM, num_stops)):
        if num_times:
            run = Run(folder / name.lower(), config)
            num_lost = interrupt(run, number, num_times, rng, total_steps)
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
    for name, run, num_lost, differences in rows:
        interrupted = [life for life in run.lives if life.end != "finished"]
        phases = Counter(life.phase for life in interrupted)
        print(
            f"{name}, {len(interrupted)} times: {dict(phases)}; went on from {[life.resumed_at for life in run.lives]}"
        )
        print(f"  longest from the signal to the end: {max(life.seconds_to_end for life in interrupted):.1f} s")
        print(f"  steps lost: {num_lost}; " + "; ".join(f"{name}: {number}" for name, number in differences.items()))


if __name__ == "__main__":
    main()
