"""After a fault, a run continues, or ends with one message and can be resumed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time

import cv2
import pytest

from tests import programs
from yolox_jax.weights.checkpoint import find, list_checkpoints

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path):
    programs.make_data_set(tmp_path / "a data set")
    return tmp_path / "a data set"


def _arguments(data, *more: str) -> list[str]:
    return [*programs.arguments(data), "--workdir=a run", "--config.checkpoint.every_steps=1", *more]


def _endless(data, *more: str) -> list[str]:
    """A run that only a signal or a fault ends. It reads images from their files again and again."""
    return _arguments(data, "--config.epochs=5000", "--config.data.cache_mb=0", "--config.data.prefetch=1", *more)


def _assert_resumes(data, cwd, *more: str) -> None:
    """Asserts that every remaining checkpoint is complete, and that the same command resumes."""
    assert {each.condition for each in list_checkpoints(cwd / "a run")} <= {"complete", "half-written"}
    newest = find(cwd / "a run").name
    process = programs.start("train.py", _endless(data, *more), cwd)
    process.wait_for_step()
    process.send(signal.SIGTERM)
    assert f"resuming from step {newest} of a run\n" in process.end(75).stdout
    assert programs.steps(cwd / "a run") == list(range(len(programs.steps(cwd / "a run"))))


def test_a_box_with_nan_is_reported_and_left_out(data, tmp_path):
    truth = json.loads((data / "all.json").read_text())
    truth["annotations"][0]["bbox"][2] = float("nan")
    (data / "all.json").write_text(json.dumps(truth))
    finished = programs.run("train.py", _arguments(data), tmp_path, 0)
    assert f"annotation {truth['annotations'][0]['id']}" in finished.stderr
    assert programs.steps(tmp_path / "a run") == list(range(6))


def test_an_image_deleted_during_training_is_reported_and_training_continues(data, tmp_path):
    process = programs.start("train.py", _endless(data), tmp_path)
    process.wait_for_step(1)
    (data / "images" / "3.png").unlink()
    process.wait_for(lambda: any("3.png" in line for line in process.error))
    process.wait_for_step(len(programs.steps(tmp_path / "a run")) + 1)
    process.send(signal.SIGTERM)
    process.end(75)


def test_an_error_in_a_loader_thread_names_the_image_and_the_last_checkpoint_is_complete(data, tmp_path):
    path = data / "images" / "3.png"
    image = cv2.imread(str(path))
    process = programs.start("train.py", _endless(data), tmp_path)
    process.wait_for_step(2)
    cv2.imwrite(str(path), image[:50])  # no longer the size in the annotations
    stopped = process.end(1)
    assert "error: " in stopped.stderr and "3.png" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    cv2.imwrite(str(path), image)
    _assert_resumes(data, tmp_path)


def _mount(folder, size: str, *options: str) -> None:
    """Mounts a file system of a given size; skips the test if this user may not mount."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "none", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root, and not every container allows it")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "a run"
    _mount(folder, "60M")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_run_and_the_last_checkpoint_is_complete(data, tmp_path, small_disk):
    # Without evaluation: a picture that cannot be written gives another message.
    process = programs.start("train.py", _endless(data, "--config.eval.every_epochs=5000"), tmp_path)
    process.wait_for_step(3)
    somebody_elses = small_disk / "somebody else's"
    with somebody_elses.open("wb", buffering=0) as file:
        while process.has_open_pipes():  # also fills the space that the end of a save frees
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"0" * 100_000)
            time.sleep(0.1)
    stopped = process.end(1)
    (message,) = stopped.stderr.splitlines()
    # metrics.jsonl or the event file may be the first to find the disk full.
    assert re.match(
        r"error: (a checkpoint could not be written to .*/a run/checkpoints|a run(/\S+)? cannot be written)", message
    )
    assert "free some space" in message and "the same command resumes from the last checkpoint" in message
    somebody_elses.unlink()
    _assert_resumes(data, tmp_path)


def test_a_read_only_directory_is_an_error_with_advice(data, tmp_path, small_disk):
    _mount(small_disk, "60M", "remount", "ro")
    stopped = programs.run("train.py", _arguments(data), tmp_path, 1)
    assert "error: a run cannot be written (Read-only file system): choose another --workdir" in stopped.stderr


def test_a_clock_that_runs_backwards_changes_nothing(data, tmp_path):
    """Runs the whole program, including orbax, with a wall clock that runs backwards."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(
        "import time\nbegin = time.time()\ntime.time = lambda: begin - 1000 * time.monotonic()\n"
    )
    backwards = {"PYTHONPATH": f"{tmp_path / 'clock'}:{programs.ROOT}"}
    programs.run("train.py", _arguments(data), tmp_path, 0, **backwards)
    assert programs.steps(tmp_path / "a run") == list(range(6))
    times = [json.loads(line)["time"] for line in (tmp_path / "a run" / "metrics.jsonl").read_text().splitlines()]
    assert times == sorted(times, reverse=True) and times[0] > times[-1]
    assert find(tmp_path / "a run").name == "6"


def test_ctrl_c_twice_ends_at_once_and_the_last_checkpoint_is_complete(data, tmp_path):
    process = programs.start("train.py", _endless(data), tmp_path)
    process.wait_for_step(3)
    process.send(signal.SIGINT)
    process.send(signal.SIGINT)
    stopped = process.end()
    assert stopped.returncode in (75, 130), stopped.stderr  # the first may already have taken effect
    assert "Traceback" not in stopped.stderr
    _assert_resumes(data, tmp_path)
