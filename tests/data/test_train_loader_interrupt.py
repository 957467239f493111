"""Ctrl-C ends a training loader and leaves no thread, process or shared memory behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.material import ROOT

# With workers, the handler is one that only notes the signal, as train.py's: Python drops an exception that arises in a
# finalizer, shared memory has finalizers, and a KeyboardInterrupt there would be lost.
_INTERRUPTED = """
    import numpy as np
    from tests.data.made_source import MadeSource
    from tests.recipe import loader_config, read_config
    from yolox_jax.data.train_loader import TrainLoader
    from yolox_jax.training.interruption import stop_request

    if __name__ == "__main__":
        source = MadeSource(np.zeros((480, 640, 3), np.uint8), [[2, 4, 120, 200]], length=1000)
        config = loader_config(size_hw=(640, 640), global_batch=8, seed=0)
        read = read_config(threads=2, workers=WORKERS)
        try:
            with TrainLoader(source, config, 10**6, read=read) as loader, HANDLER as stop:
                for number, _ in enumerate(loader):
                    if number == 2:
                        print("going", flush=True)
                    if stop is not None and stop.check():
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            print("interrupted")
"""


def _shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupt_ends_all_threads_and_processes(tmp_path, workers):
    shared_before = _shared_memory()
    program = tmp_path / "program.py"
    handler = "stop_request()" if workers else "contextlib.nullcontext()"
    text = textwrap.dedent(_INTERRUPTED).replace("WORKERS", str(workers)).replace("HANDLER", handler)
    program.write_text(f"import contextlib\n{text}")
    process = subprocess.Popen(
        [sys.executable, program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "going\n"
        os.killpg(process.pid, signal.SIGINT)  # to all of its processes, as a terminal does
        out, err = process.communicate(timeout=60)  # which also waits for every child that holds the pipes
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == 0 and out.splitlines()[-1] == "interrupted", err
    # Python's resource tracker frees a batch that was in transit when grain stopped its workers, and reports it.
    reported = [line for line in err.splitlines() if "resource_tracker" not in line and "warnings.warn(" not in line]
    assert reported == []
    # Other programs on the machine have shared memory too, for one batch at a time; what was left behind would stay.
    left = _shared_memory() - shared_before
    deadline = time.monotonic() + 60
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left &= _shared_memory()
    assert not left
