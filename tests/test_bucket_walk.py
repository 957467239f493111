"""The walk of docs/clusters.md with a run in a bucket: its commands, as they stand there, against a store here.

Only the network is smaller, and so are the images.
"""

import re
import shlex
import shutil

import cv2
import numpy as np
import pytest

from tests import programs
from yolox_jax import storage
from yolox_jax.weights import manifest

_SHORT = [
    "--config.input_size=(64, 64)",
    "--config.batch_size=4",
    "--config.eval.batch_size=8",
    "--config.eval.every_epochs=25",
    "--config.epochs=25",
    "--config.no_aug_epochs=1",
    "--config.log_every_steps=1",
    "--config.checkpoint.every_steps=20",
    "--config.data.shapes.num_train=16",
    "--config.data.shapes.num_val=8",
]


def _commands() -> list[list[str]]:
    page = (programs.ROOT / "docs" / "clusters.md").read_text()
    (section,) = re.findall(r"^## A spot machine and a bucket\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    lines = "".join(re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)).splitlines()
    return [shlex.split(line) for line in lines]


@pytest.mark.slow
def test_a_run_in_a_bucket_outlives_its_machine_and_is_used_from_there(tmp_path, gs_bucket):
    home = tmp_path / "home"
    more = {**gs_bucket.environment, "YOLOX_JAX_HOME": str(home)}
    cv2.imwrite(str(tmp_path / "street.jpg"), np.zeros((40, 60, 3), np.uint8))

    def start(command, num_devices=1):
        python, *rest = (part.replace("gs://my-bucket", gs_bucket.address) for part in command)
        assert python == "python"
        program = f"-m tests.small {rest.pop(1)}" if rest[0] == "-m" else rest[0]
        arguments = rest[1:] + (_SHORT if program in ("train.py", "eval.py") else [])
        arguments = [part.replace("configs/quickstart.py", f"{programs.ROOT}/tests/small.py") for part in arguments]
        return programs.start(program, arguments, tmp_path, num_devices=num_devices, **more)

    def in_bucket():
        return storage.list_files(storage.resolve(gs_bucket.address))

    first, *others = _commands()
    assert others[0] == first and len(others) == 4
    run = f"{gs_bucket.address}/quick"
    lost = start(first)
    lost.wait_for(lambda: any(path.endswith(manifest.NAME) for path in in_bucket()))
    lost.kill()
    shutil.rmtree(home)
    outputs = [start(others[0], num_devices=2).end(0).stdout]
    shutil.rmtree(home)
    outputs += [start(command).end(0).stdout for command in others[1:]]
    resumed, listed, evaluated, predicted = outputs
    assert re.search(f"resuming from step [2468]0 of {run}\n", resumed) and f"Written to {run}: checkpoints/" in resumed
    assert re.search(r"^ +100 .* verified$", listed, re.MULTILINE)
    assert "8 images" in evaluated and " images: gs://" in predicted
    assert {"ap.json", "found/predictions.json", "found/street.jpg"} <= set(in_bucket())
