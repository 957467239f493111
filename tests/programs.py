"""Starts train.py, eval.py and the tools as a user does, on a small COCO data set on disk."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import IO

import cv2
import jax
import pytest

from tests.material import ROOT
from yolox_jax.data.sources.shapes import ShapesSource

NUM_IMAGES = 12
_SILENCE = 600  # seconds without output after which a program counts as hanging; compiling prints nothing
_started: list["Program"] = []


def make_data_set(root: Path, num_images: int = NUM_IMAGES) -> None:
    """Writes all.json, a COCO json, and a folder of images."""
    source = ShapesSource(num_images=num_images, seed=0)
    (root / "images").mkdir(parents=True)
    for index in range(len(source)):
        cv2.imwrite(str(root / "images" / f"{source.image_id(index)}.png"), source[index].image)
    truth = source.ground_truth()
    for image in truth["images"]:
        image["file_name"] = f"{image['id']}.png"
    for category in truth["categories"]:
        category["id"] *= 10  # sparse, as in COCO
    for annotation in truth["annotations"]:
        annotation["category_id"] *= 10
    (root / "all.json").write_text(json.dumps(truth))


def arguments(data: Path | str, size: str = "(64, 64)") -> list[str]:
    """Arguments for a small network on that data set, shortened to six steps."""
    return [
        f"--config={ROOT / 'tests' / 'small.py'}",
        "--config.data.kind=coco",
        f"--config.data.root={data}",
        "--config.data.train=all.json",
        "--config.data.train_images=images",
        "--config.data.val=all.json",
        "--config.data.val_images=images",
        f"--config.input_size={size}",  # a parameter, since giving a tuple twice appends to it
        "--config.batch_size=4",
        "--config.eval.batch_size=8",
        "--config.eval.every_epochs=1",
        "--config.epochs=2",
        "--config.log_every_steps=1",
        "--config.eval.detect.conf=0.0001",  # six steps train little
    ]


def xla_flags(num_devices: int) -> str:
    """XLA_FLAGS for simulated devices. At a flag that jaxlib does not know, it ends the process without a word."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    if jax.__version_info__ >= (0, 8):
        # Of LLVM: a program compiles in two thirds of the time. An older jaxlib then rounds bfloat16 at other places.
        flags += " --xla_backend_optimization_level=0"
        # On a busy machine, a device may have to wait a long time for the others.
        flags += " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    return flags


def environment(num_devices: int = 1) -> dict[str, str]:
    """The environment of a program with simulated devices of its own and the tests' compilation cache."""
    return os.environ | {
        "XLA_FLAGS": xla_flags(num_devices),
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("YOLOX_JAX_TEST_CACHE", str(ROOT / ".jax_cache")),
        "PYTHONPATH": str(ROOT),
    }


class Program:
    """A running program. Threads read its pipes, so that it never blocks; waiting ends after long silence."""

    def __init__(self, command: list[str], cwd: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True
        )
        _started.append(self)
        self.pid = self._process.pid
        self.output: list[str] = []
        self.error: list[str] = []
        self._changed = threading.Condition()
        self._last_output = time.monotonic()
        pipes = ((self._process.stdout, self.output), (self._process.stderr, self.error))
        self._readers = [threading.Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[str], lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    lines.append(line)
                    self._last_output = time.monotonic()
                    self._changed.notify()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition`, a function that looks at `output` and `error`, returns True."""
        with self._changed:
            while not condition():
                has_ended = not self.has_open_pipes()
                if has_ended or self._hangs():
                    break
                self._changed.wait(1)
        if not condition():
            self.kill()
            pytest.fail(f"{'ended' if has_ended else 'printed nothing more'} before that: {self.last_lines()}")

    def _hangs(self) -> bool:
        return time.monotonic() - self._last_output > _SILENCE

    def wait_for_step(self, step: int = 1) -> None:
        """Waits until a training program reports that step or a later one."""

        def reached() -> bool:
            reports = (re.match(r"step (\d+)/", line) for line in reversed(self.output))
            last = next((int(report[1]) for report in reports if report), 0)
            return last >= step

        self.wait_for(reached)

    def kill(self) -> None:
        """Kills it and its children, which may outlive it."""
        if self._process.poll() is None or self.has_open_pipes():
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def has_open_pipes(self) -> bool:
        """True while it or one of its children has its pipes open."""
        return any(reader.is_alive() for reader in self._readers)

    def end(self, code: int | None = None) -> subprocess.CompletedProcess[str]:
        """Waits until it and its children have ended; if `code` is given, that must be its exit code."""
        while self.has_open_pipes() and not self._hangs():
            for reader in self._readers:
                reader.join(1)
        hangs = self.has_open_pipes()
        if hangs:
            self.kill()
        ended = self._process.wait()
        assert not hangs, f"the program did not end: {self.last_lines()}"
        assert code is None or ended == code, f"exit code {ended}: {self.last_lines()}"
        return subprocess.CompletedProcess(self._process.args, ended, "".join(self.output), "".join(self.error))

    def last_lines(self) -> str:
        """The last lines of its output and errors, for the message of a failed test."""
        return "".join([*self.output[-40:], "\n", *self.error[-40:]])


def start(program: str, arguments: list[str], cwd: Path, *, num_devices: int = 1, **more: str) -> Program:
    """Starts train.py, eval.py or, as "-m name", a tool; `more` is added to its environment."""
    begin = program.split() if program.startswith("-m ") else [str(ROOT / program)]
    return Program([sys.executable, *begin, *arguments], cwd, environment(num_devices) | more)


def kill_all() -> None:
    """Kills the programs that a failed test has left running."""
    while _started:
        _started.pop().kill()


def run(program: str, arguments: list[str], cwd: Path, code: int | None = None, **more: str):
    """Runs a program from start to end."""
    return start(program, arguments, cwd, **more).end(code)


def steps(workdir: Path) -> list[int]:
    """The steps with a loss in metrics.jsonl."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be half-written
    return [record["step"] for record in records if "loss" in record]
