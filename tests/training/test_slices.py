"""Two processes with disks of their own save one checkpoint through a shared store, and both restore it."""

import os
import socket
import subprocess
import sys

import pytest

from tests import programs

_PROGRAM = """
import sys, jax, numpy as np
from pathlib import Path
from tests.training import toy
from yolox_jax.mesh import make_mesh, place
from yolox_jax.training import hosts, open_directory, parallel, run_directory
from yolox_jax.training.checkpoints import Checkpoints

address, number, run = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
run_directory.can_rename = lambda folder: False  # a folder takes the place of a bucket
with hosts.joined(address, 2, number):
    mesh, state = make_mesh(), toy.create_state()
    state = place(state, mesh, parallel.state_specs(state, mesh, True))
    for first, expected in ((1, None), (3, 2)):
        with open_directory.opened(run, resume=True) as directory:
            checkpoints = Checkpoints(directory.path, 2, directory.address, directory.slices)
            restored = checkpoints.restore_latest(state, lambda meta: None)
            assert (None if restored is None else restored[1].step) == expected
            if restored is not None:
                for ours, theirs in zip(jax.tree.leaves(restored[0]), jax.tree.leaves(state), strict=True):
                    for a, b in zip(ours.addressable_shards, theirs.addressable_shards, strict=True):
                        np.testing.assert_array_equal(a.data, b.data)
            for step in (first, first + 1):
                checkpoints.save(state, toy.meta(step, num_devices=4, num_processes=2))
                directory.copy(saving=step)
                checkpoints.record_ap(step, step / 10)
            checkpoints.close()
        jax.experimental.multihost_utils.sync_global_devices(f"closed {first}")
"""


@pytest.mark.slow
def test_each_process_writes_its_slices_and_process_0_commits_one_checkpoint(tmp_path):
    (tmp_path / "program.py").write_text(_PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [
        subprocess.Popen(
            [sys.executable, "program.py", address, str(number), str(tmp_path / "store" / "run")],
            cwd=tmp_path,
            env=programs.environment(2) | {"YOLOX_JAX_HOME": str(tmp_path / f"disk {number}")},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    run = tmp_path / "store" / "run"
    assert sorted(os.listdir(run / "checkpoints")) == ["3", "4", "ap.json"]
    written = sorted(path.name for path in (run / "checkpoints" / "4" / "ema").glob("ocdbt.*"))
    assert written == ["ocdbt.process_0", "ocdbt.process_1"]
    assert not any(path.is_file() for path in run.glob("slices-*/**/*"))
