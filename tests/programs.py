"""How tests start train.py, eval.py and the tools as a user does, on a small COCO data set on disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.material import ROOT
from yolox_jax.data.sources.shapes import ShapesSource

NUM_IMAGES = 12
_SECONDS = 300  # until a program that hangs is a failed test


def make_data_set(root: Path) -> None:
    """A COCO json and a folder of images."""
    source = ShapesSource(num_images=NUM_IMAGES, seed=0)
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


def arguments(data: Path, size: str = "(64, 64)") -> list[str]:
    """The quickstart on that data set, cut down to six steps."""
    return [
        f"--config={ROOT / 'configs' / 'quickstart.py'}",
        "--config.data.kind=coco",
        f"--config.data.root={data}",
        "--config.data.train=all.json",
        "--config.data.train_images=images",
        "--config.data.val=all.json",
        "--config.data.val_images=images",
        f"--config.input_size={size}",  # said twice, a tuple grows instead of changing
        "--config.batch_size=4",
        "--config.eval.batch_size=8",
        "--config.eval.every_epochs=1",
        "--config.epochs=2",
        "--config.log_every_steps=1",
        "--config.eval.detect.conf=0.0001",  # six steps teach little
    ]


def environment(num_devices: int = 1) -> dict[str, str]:
    """That of a program with its own simulated devices and the tests' compilation cache."""
    return os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("YOLOX_JAX_TEST_CACHE", str(ROOT / ".jax_cache")),
        "PYTHONPATH": str(ROOT),
    }


def start(program: str, arguments: list[str], cwd: Path, *, num_devices: int = 1, **more: str) -> subprocess.Popen[str]:
    """Starts train.py, eval.py or, as "-m name", a tool; `more` goes into its environment."""
    begin = program.split() if program.startswith("-m ") else [str(ROOT / program)]
    return subprocess.Popen(
        [sys.executable, *begin, *arguments],
        cwd=cwd,
        env=environment(num_devices) | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str], code: int | None = None) -> subprocess.CompletedProcess[str]:
    """Waits for a program and all its children; where `code` is given, it must end with that."""
    try:
        output, error = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, error = process.communicate()
    assert code is None or process.returncode == code, output + error
    return subprocess.CompletedProcess(process.args, process.returncode, output, error)


def run(program: str, arguments: list[str], cwd: Path, code: int | None = None, **more: str):
    """A program from start to end."""
    return end(start(program, arguments, cwd, **more), code)


def wait_for_step(process: subprocess.Popen[str], step: int = 1) -> list[str]:
    """Waits until a training program reports a step (or a later one); what it has printed."""
    told = []
    for line in process.stdout:
        told.append(line)
        if line.startswith("step ") and int(line.removeprefix("step ").split("/")[0]) >= step:
            return told
    pytest.fail(f"ended before step {step}: {process.communicate()[1]}")


def steps(workdir: Path) -> list[int]:
    """The steps that metrics.jsonl has a loss of."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if "loss" in record]
