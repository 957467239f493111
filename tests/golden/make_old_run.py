"""Makes old_run.tar.xz and old_run.json: a run written by commit ad267af, and what that commit made of it.

Run in a checkout of that commit, with the packages of its requirements.txt:

    PYTHONPATH=. python PATH/make_old_run.py FOLDER

The run is stopped by SIGTERM a few steps before its end. Then the same code evaluates it and resumes it. To keep the
archive small, the deepest layers, which have most of the weights of YOLOX-nano, are frozen at kernels of one absolute
value, which compress to their signs.
"""

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import jax
import numpy as np
from yolox_jax.models.torch_writer import save_pth

from yolox_jax.models import official_weights, yolox  # of that commit
from yolox_jax.training import state

STOP_AT = 1595  # of 1600 steps
FROZEN = ("dark4", "dark5", "lateral_conv0", "C3_n4")
CONFIG = (
    "--config=configs/quickstart.py",
    "--config.input_size=(64, 64)",
    "--config.data.shapes.num_train=160",
    "--config.data.shapes.num_val=16",
    "--config.mosaic.prob=0.1",
    "--config.batch_size=4",
    "--config.epochs=40",
    f"--config.freeze={FROZEN}",
    "--config.init_from=start.pth",
    "--config.checkpoint.keep_last=1",
    "--config.eval.every_epochs=40",
    "--config.eval.batch_size=8",
    "--config.eval.detect.conf=0.0001",
)
TIMINGS = ("time", "images_per_second", "data_wait")


def main(golden: Path) -> None:
    repository = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(repository / "configs", work / "configs")
        write_coarse_weights(work / "start.pth")
        eval_py = [sys.executable, str(repository / "eval.py"), *CONFIG, "--weights=run", "--output=ap.json"]
        train_py = [sys.executable, str(repository / "train.py"), *CONFIG, "--workdir=run"]

        train_until_stopped([*train_py, "--config.log_every_steps=5"], work)
        for name in ("tensorboard", "pictures"):  # written again on resuming; not needed to resume
            shutil.rmtree(work / "run" / name)
        with tarfile.open(golden / "old_run.tar.xz", "w:xz", preset=9) as archive:
            archive.add(work / "run", "run")
        (first_step,) = (int(path.name) for path in (work / "run" / "checkpoints").iterdir() if path.name.isdigit())

        subprocess.run(eval_py, cwd=work, check=True)
        subprocess.run([*train_py, "--config.log_every_steps=1"], cwd=work, check=True)
        records = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
        content = {
            "flags": CONFIG,
            "jax": jax.__version__,
            "first_step": first_step,
            "steps": [without_timings(each) for each in records if "loss" in each and each["step"] >= first_step],
            "evaluated": without_timings(json.loads((work / "ap.json").read_text())),
            "evaluated_at_the_end": without_timings(json.loads((work / "run" / "results.json").read_text())),
        }
        (golden / "old_run.json").write_text(json.dumps(content, indent=1) + "\n")


def write_coarse_weights(path: Path) -> None:
    """Initial weights in which each frozen kernel has one absolute value."""
    model = yolox.create("nano", 4)
    drawn = official_weights.to_state_dict(state.init_variables(model, 0), model)
    for name, array in drawn.items():
        if array.ndim == 4 and any(part in name for part in FROZEN):
            drawn[name] = (np.sign(array) * np.std(array)).astype(np.float32)
    save_pth(path, drawn)


def train_until_stopped(command: list[str], work: Path) -> None:
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith(f"step {STOP_AT}/"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 75


def without_timings(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in TIMINGS}


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
