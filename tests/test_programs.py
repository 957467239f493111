"""train.py and eval.py as a user starts them, on a small COCO data set on disk."""

import json
import os
import re
import shlex
import subprocess
import sys

import cv2
import pytest

from tests.material import ROOT
from yolox_jax.data.sources.shapes import ShapesSource

_NUM_IMAGES = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A COCO json and a folder of images, in a path with a space."""
    root = tmp_path_factory.mktemp("a data set")
    source = ShapesSource(num_images=_NUM_IMAGES, seed=0)
    (root / "images").mkdir()
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
    return root


def _arguments(data, size: str = "(64, 64)") -> list[str]:
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


def _run(program: str, arguments: list[str], cwd) -> subprocess.CompletedProcess[str]:
    cache = os.environ.get("YOLOX_JAX_TEST_CACHE", str(ROOT / ".jax_cache"))
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
    command = [sys.executable, str(ROOT / program), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("elsewhere")
    finished = _run("train.py", [*_arguments(data), "--workdir=runs/first"], cwd)
    assert finished.returncode == 0, finished.stderr
    return cwd, finished.stdout


def _ap_lines(text: str) -> list[str]:
    return re.findall(r"^ +AP .*$|^ +AR_1 .*$", text, flags=re.MULTILINE)


@pytest.mark.slow
def test_training_tells_its_progress_and_leaves_results_behind(run, data):
    cwd, output = run
    assert "4 classes: circle, square, triangle, star" in output
    assert re.search(r"step 6/6 epoch 2/2  loss \d.*images/s  ETA 0:00:00", output)
    workdir = cwd / "runs" / "first"
    results = json.loads((workdir / "results.json").read_text())
    assert 0 <= results["AP50"] <= 1 and results["num_images"] == _NUM_IMAGES
    sheet = cv2.imread(str(workdir / "predictions.jpg"))
    assert sheet.shape == (640, 1280, 3)  # eight images in two rows
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [0, 1, 2, 3, 4, 5]
    assert [r["step"] for r in records if r.get("event") == "evaluation"] == [2, 5]
    (command,) = re.findall(r"^  python eval.py .*$", output, flags=re.MULTILINE)
    assert shlex.split(command)[3:] == ["--weights=runs/first", *_arguments(data)[1:]]


@pytest.mark.slow
def test_eval_prints_the_aps_that_training_ended_with_and_writes_detections(run, data):
    cwd, output = run
    arguments = [a for a in _arguments(data) if "epochs" not in a]
    arguments += ["--weights=runs/first", "--output=again.json", "--detections=found.json"]
    finished = _run("eval.py", arguments, cwd)
    assert finished.returncode == 0, finished.stderr
    assert _ap_lines(finished.stdout) == _ap_lines(output) != []
    first = json.loads((cwd / "runs" / "first" / "results.json").read_text())
    again = json.loads((cwd / "again.json").read_text())
    assert {k: v for k, v in first.items() if k != "images_per_second"} == {
        k: v for k, v in again.items() if k != "images_per_second"
    }
    detections = json.loads((cwd / "found.json").read_text())
    assert detections and {detection["category_id"] for detection in detections} <= {10, 20, 30, 40}


@pytest.mark.slow
def test_a_finished_run_started_again_says_so_and_gives_the_same_results(run, data):
    cwd, output = run
    finished = _run("train.py", [*_arguments(data), "--workdir=runs/first"], cwd)
    assert finished.returncode == 0, finished.stderr
    assert "going on from step 6" in finished.stdout
    assert _ap_lines(finished.stdout) == _ap_lines(output)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.num_classes=7", "config.num_classes is 7, but the data set lists 4 classes: circle, square"),
        ("--config.data.kind=cocoo", "config.data.kind is 'cocoo'"),
        ("--config.data.train=absent.json", "config.data.train: there is no file"),
        ("--config.model=yolox_s", "no model named 'yolox_s'"),
        ("--config.optimizer=lion", "config.optimizer is 'lion': choose one of sgd, adamw"),
        ("--config.dtype=float16", "config.dtype is 'float16'"),
        ("--config.init_from=absent.pth", "there is no file or folder absent.pth"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_one(data, tmp_path, argument, message):
    finished = _run("train.py", [*_arguments(data), "--workdir=run", argument], tmp_path)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("size", ["(100, 64)", "(64,)", "(64, 64, 64, 64)"])
def test_an_input_size_that_is_not_two_multiples_of_32_is_one_message(data, tmp_path, size):
    for program, extra in (("train.py", "--workdir=run"), ("eval.py", "--weights=yolox_nano")):
        finished = _run(program, [*_arguments(data, size), extra], tmp_path)
        assert finished.returncode == 1
        assert f"input size {size.strip('(,)').replace(', ', 'x')} (height x width)" in finished.stderr


def test_a_word_that_is_no_flag_is_refused(data, tmp_path):
    finished = _run("eval.py", [*_arguments(data), "--weights=x", "surplus"], tmp_path)
    assert finished.returncode != 0
    assert "surplus" in finished.stderr + finished.stdout
