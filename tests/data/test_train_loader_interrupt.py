"""A training loader that is closed, or ended by Ctrl-C, leaves no thread, process or shared memory behind."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.made_source import MadeSource
from tests.material import ROOT
from tests.recipe import loader_config, read_config
from yolox_jax.data.train_loader import TrainLoader

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


def _open_now():
    """Threads, child processes, open files and shared memory, each by a name that lives as long."""
    tasks, memory = Path("/proc/self/task"), Path("/dev/shm")
    children = (text for task in tasks.iterdir() for text in (task / "children").read_text().split())
    files = (f"file {path.name}" for path in Path("/proc/self/fd").iterdir() if path.exists())
    return {*(str(task) for task in tasks.iterdir()), *children, *files, *map(str, memory.iterdir())}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks in Linux's /proc")
@pytest.mark.slow
def test_worker_processes_of_closed_loaders_leave_nothing_behind():
    source = MadeSource(np.zeros((48, 64, 3), np.uint8), [[2, 4, 12, 20]], length=10)
    config = loader_config(size_hw=(64, 64), global_batch=4, seed=0)
    for number in range(4):
        with TrainLoader(source, config, 6, read=read_config(threads=0, workers=1)) as loader:
            next(loader)
        if number == 0:
            gc.collect()
            before = _open_now()
    del loader
    gc.collect()
    end = time.monotonic() + 60  # what was closed may need a moment, and other programs have shared memory too
    while (left := _open_now() - before) and time.monotonic() < end:
        time.sleep(0.01)
    assert left == set()
