"""Kills training runs at random moments and checks that nothing is lost: python -m benchmarks.crash_test --kills=20

One run of a short quickstart is not interrupted. A second is killed with SIGKILL again and again, while it starts,
trains, evaluates and saves (every third step), and restarted by the same command until it finishes. A third is stopped
with SIGTERM. Their logged losses, evaluations, TensorBoard files and final states must equal the first run's, bit for
bit.

With --workdir=gs://… the interrupted runs write to the bucket, and every local file of theirs is deleted before each
restart. --emulator is a store for gs:// on this machine in place of a bucket, --faults the share of its requests that
fail, get no answer for two seconds, or lose their connection.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import random
import re
import shutil
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

from benchmarks import machine
from yolox_jax import storage
from yolox_jax.storage import BucketPath, Location
from yolox_jax.weights import bucket_copy

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "quickstart.py"
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
_STEPS_PER_EPOCH = 20  # 160 images in batches of 8
_SILENCE = 900  # seconds without output after which a program hangs; a large one compiles in silence
_STOPPED = 75  # exit code of train.py after a save on SIGTERM
_NOT_COMPARED = ("images_per_second", "data_wait", "time", "num_programs")  # differ between runs without an error


@dataclasses.dataclass
class Attempt:
    """One start of the program, until it ends or is interrupted."""

    end: str  # "finished", "killed" or "stopped"
    phase: str  # what it did when it was interrupted
    resumed_at: int  # step
    reported: int  # the last step that it logged
    saved_at: int | None  # the step that it reported to have saved when it stopped
    seconds_to_end: float  # after the signal


def read_events(file: Path) -> Iterator[Event]:
    """Reads the events of a TensorBoard file."""
    content, place = file.read_bytes(), 0
    while place < len(content):  # TFRecord: length, its checksum, the data, its checksum
        (length,) = struct.unpack_from("<Q", content, place)
        yield Event.FromString(content[place + 12 : place + 12 + length])
        place += length + 16


@dataclasses.dataclass
class Run:
    """A run directory and the program's attempts in it."""

    workdir: Location
    config: tuple[str, ...]  # the file, and fields
    folder: Path  # for compiled programs, the local files of a run in a bucket, and a copy of its results
    attempts: list[Attempt] = dataclasses.field(default_factory=list)

    def start(self, number: int | None = None, num_reports: int | None = None, delay: float = 0.0) -> Attempt:
        """Starts the program and waits for its end.

        Sends signal `number`, if given, `delay` seconds after the program has reported `num_reports` steps.
        """
        command = [sys.executable, str(ROOT / "train.py"), f"--workdir={self.workdir}", *self.config]
        # With a compilation cache, since otherwise each attempt would compile again.
        environment = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled")} | os.environ
        if isinstance(self.workdir, BucketPath):
            environment["YOLOX_JAX_HOME"] = str(self.folder / "home")
            shutil.rmtree(self.folder / "home", ignore_errors=True)  # as on a new machine
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
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
            if not reader.wait_for_end():
                process.kill()
                raise SystemExit(f"{self.workdir} hangs:\n{''.join(reader.lines)}")
        seconds, output = time.monotonic() - sent, "".join(reader.lines)
        ends = {0: "finished", -signal.SIGKILL: "killed", -signal.SIGTERM: "killed", _STOPPED: "stopped"}
        if process.returncode not in ends:
            raise SystemExit(f"{self.workdir} ended with {process.returncode}:\n{output}")
        if ends[process.returncode] == "finished":
            phase = "finished"
        resumed = re.search(r"^resuming from step (\d+)", output, re.MULTILINE)
        saved = re.search(r"saved at step (\d+)", output)
        attempt = Attempt(
            ends[process.returncode],
            phase,
            int(resumed[1]) if resumed else 0,
            max(map(int, re.findall(r"^step (\d+)/", output, re.MULTILINE)), default=0),
            int(saved[1]) if saved else None,
            seconds,
        )
        self.attempts.append(attempt)
        return attempt

    def results(self) -> Path:
        """The run directory, or a copy of one in a bucket."""
        if isinstance(self.workdir, Path):
            return self.workdir
        target = self.folder / f"{self.workdir.name} copied"
        if not target.exists():
            for name in storage.list_files(self.workdir):
                storage.download(self.workdir / name, target / name)
        return target

    def records(self) -> list[dict[str, Any]]:
        lines = (self.results() / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in _NOT_COMPARED} for line in lines]

    def events(self) -> list[tuple[int, str, float, bytes]]:
        """All values in the TensorBoard files: step, name, number, picture."""
        found = []
        for path in sorted((self.results() / "tensorboard").iterdir()):
            for event in read_events(path):
                found += [
                    (event.step, value.tag, value.simple_value, value.image.encoded_image_string)
                    for value in event.summary.value
                ]
        return [each for each in found if each[1].partition("/")[2] not in _NOT_COMPARED]

    def saved_steps(self) -> list[int]:
        return sorted(bucket_copy.steps(storage.list_files(self.workdir)))

    def best_step(self) -> int:
        aps = json.loads((self.results() / "checkpoints" / "ap.json").read_text())
        return int(max(aps, key=lambda step: (aps[step], int(step))))

    def final_state(self) -> list[np.ndarray]:
        """All arrays of the last checkpoint."""
        folder = self.results() / "checkpoints" / str(self.saved_steps()[-1])
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
    """Reads a program's output, and derives from it what the program is doing."""

    def __init__(self, stream: IO[str]):
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self.phase = "starting"
        self.ended = threading.Event()
        self._last_line = time.monotonic()
        self._stream = stream
        self._reports = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        for line in self._stream:
            self.lines.append(line)
            self._last_line = time.monotonic()
            if found := re.match(r"step (\d+)/", line):
                self.phase = "evaluating" if int(found[1]) % _STEPS_PER_EPOCH == 0 else "training"
                self._reports.release()
            elif line.startswith("AP "):
                self.phase = "training"
        for _ in range(1000):
            self._reports.release()  # ends wait_for_reports: no more reports will come
        self.ended.set()

    def wait_for_end(self) -> bool:
        """Waits until the program ends. Returns False if it hangs."""
        while not self.ended.wait(1):
            if time.monotonic() - self._last_line > _SILENCE:
                return False
        return True

    def wait_for_reports(self, num_reports: int) -> None:
        for _ in range(num_reports):
            self._reports.acquire()


def interrupt(run: Run, number: int, num_times: int, rng: random.Random, total_steps: int) -> int:
    """Sends the signal at `num_times` random moments, restarting the run after each, then lets the run finish.

    Of every seven moments one is during the start and one during an evaluation. Returns the number of lost steps: saved
    ones that the restart did not resume from, ones wrongly reported as saved, and ones logged before a stop, not saved.
    """
    num_lost = 0
    for attempt_number in range(num_times):
        saved = run.saved_steps()
        steps_left = total_steps - (saved[-1] if saved else 0)
        if attempt_number % 7 == 2:  # while it starts
            attempt = run.start(number, None, rng.uniform(0.1, 10.0))
        elif attempt_number % 7 == 1:  # while it evaluates, at the end of the epoch
            attempt = run.start(number, 1 + (steps_left - 1) % _STEPS_PER_EPOCH, rng.uniform(0.0, 0.5))
        else:  # while it trains or saves, spread over the steps that are left
            share = 2 * steps_left // (num_times - attempt_number)
            attempt = run.start(number, rng.randint(1, max(1, min(steps_left, share))), rng.uniform(0.0, 1.5))
        if saved and attempt.phase != "starting":
            num_lost += max(0, saved[-1] - attempt.resumed_at)
        if attempt.saved_at is not None:
            found = max(run.saved_steps(), default=0)
            num_lost += max(0, attempt.reported - attempt.saved_at) + max(0, attempt.saved_at - found)
    while run.attempts[-1].end != "finished":
        run.start()
    return num_lost


def compare(run: Run, whole: Run) -> dict[str, int]:
    """Counts the differences between two finished runs; all must be 0."""
    ours, theirs = run.records(), whole.records()
    by_key = {(record["step"], record.get("event")): record for record in theirs}
    keys = [(record["step"], record.get("event")) for record in ours]
    steps = [record["step"] for record in ours if "event" not in record]
    return {
        "differing records": sum(record != by_key.get(key) for record, key in zip(ours, keys, strict=True)),
        "missing records": len(set(by_key) - set(keys)),
        "duplicate records": len(keys) - len(set(keys)),
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
    folder: Path,
    num_kills: int,
    num_stops: int,
    seed: int,
    config: tuple[str, ...],
    workdir: Location | None = None,
) -> list[tuple[str, Run, int, dict[str, int]]]:
    """Returns the rows of the table: the signal, the run, the number of lost steps, the differences.

    The interrupted runs are below `workdir`, by default in `folder` like the uninterrupted one.
    """
    rng = random.Random(seed)
    whole = Run(folder / "whole", config, folder)
    whole.start()
    total_steps = 1 + max(record["step"] for record in whole.records())
    rows = []
    for name, number, num_times in (("SIGKILL", signal.SIGKILL, num_kills), ("SIGTERM", signal.SIGTERM, num_stops)):
        if num_times:
            run = Run((workdir or folder) / name.lower(), config, folder)
            num_lost = interrupt(run, number, num_times, rng, total_steps)
            rows.append((name, run, num_lost, compare(run, whole)))
    return rows


@contextlib.contextmanager
def _emulator(faults: float) -> Iterator[str]:
    """Runs a store for gs:// with a bucket, in the environment of this process. Gives the bucket's address."""
    from tests import faulty_proxy, storage_servers

    with storage_servers.google_server() as endpoint, faulty_proxy.faulty_proxy(endpoint) as proxy:
        bucket = storage_servers.google_bucket(endpoint)
        if faults:
            proxy.errors = proxy.resets = proxy.stalls = faults / 3
            bucket = bucket.through(proxy.endpoint)
        os.environ.update(bucket.environment)
        yield bucket.address
        print(f"{proxy.num_faults} of {proxy.num_requests} requests went wrong" if faults else "no request went wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of times to send SIGKILL")
    parser.add_argument("--stops", type=int, default=5, help="number of times to send SIGTERM")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--workdir", help="a prefix in a bucket, for the interrupted runs")
    parser.add_argument("--emulator", action="store_true", help="start a store for gs:// and make a bucket there")
    parser.add_argument("--faults", type=float, default=0.0, help="share of the emulator's requests that go wrong")
    arguments, config = parser.parse_known_args()  # the rest are fields of the config, to shorten the runs further
    if unknown := [argument for argument in config if not argument.startswith("--config.")]:
        parser.error(f"unknown argument {unknown[0]}")
    machine.describe()
    with contextlib.ExitStack() as opened:  # with a space, as real paths have
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="crash test ")))
        if arguments.emulator:
            arguments.workdir = opened.enter_context(_emulator(arguments.faults))
        workdir = storage.resolve(arguments.workdir) if arguments.workdir else None
        numbers = arguments.kills, arguments.stops, arguments.seed
        rows = crash_test(folder, *numbers, (f"--config={CONFIG}", *SHORT, *config), workdir=workdir)
    for name, run, num_lost, differences in rows:
        interrupted = [attempt for attempt in run.attempts if attempt.end != "finished"]
        phases = Counter(attempt.phase for attempt in interrupted)
        resumed_at = [attempt.resumed_at for attempt in run.attempts]
        print(f"{name}, {len(interrupted)} times: {dict(phases)}; resumed from {resumed_at}")
        print(f"  longest time from signal to end: {max(attempt.seconds_to_end for attempt in interrupted):.1f} s")
        print(f"  steps lost: {num_lost}; " + "; ".join(f"{name}: {number}" for name, number in differences.items()))


if __name__ == "__main__":
    main()
