"""Freed memory stays with the process, until memory is scarce."""

import platform
import subprocess
import sys
from unittest import mock

import pytest

from yolox_jax.training import host_memory
from yolox_jax.training.host_memory import keep_freed_memory

_PROGRAM = """
import resource, sys
import jax
import numpy as np
from yolox_jax.training.host_memory import keep_freed_memory

if pixels := int(sys.argv[1]):
    keep_freed_memory(pixels)
x = jax.block_until_ready(jax.device_put(np.ones((6000, 8), np.float32)))
step = jax.jit(lambda x: (x @ x.T) @ x)  # one block, of 6000 * 6000 numbers
page_faults = []
for _ in range(60):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    page_faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(np.median(page_faults)))  # the first calls take new blocks, and now and then a later one
"""

_ORDER = """
import contextlib, runpy, sys
from unittest import mock

from jax._src import xla_bridge

import yolox_jax
from yolox_jax.training import host_memory

def keep(pixels=None):
    print(pixels, xla_bridge.backends_are_initialized())
    raise SystemExit

with mock.patch.object(host_memory, "keep_freed_memory", keep):  # what imports it afterwards gets this one
"""


_TRIM = """
import sys
from types import SimpleNamespace

import numpy as np
from yolox_jax.training import host_memory

def program(temporaries):
    return SimpleNamespace(memory_analysis=lambda: SimpleNamespace(temp_size_in_bytes=temporaries))

host_memory.keep_freed_memory()
for size in (24, 25, 26):
    np.ones(1 << size)
print(host_memory._resident_bytes())
host_memory.trim_memory()
make_room = host_memory.RoomForSteps("cpu")
host_memory.RoomForSteps("gpu")(program(temporaries=3 << 30), ())  # of the device: nothing is returned
host_memory.RoomForSteps("cpu")(lambda state, batch: None, ())  # a step mapped by pmap
make_room(program(temporaries=1 << 20), ())
print(host_memory._resident_bytes())
if sys.argv[1] == "scarce":
    host_memory._total_bytes = lambda: 1 << 29
    host_memory.trim_memory()
else:
    make_room(program(temporaries=3 << 30), ())
print(host_memory._resident_bytes())
"""
_needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be tuned")


@_needs_glibc
@pytest.mark.parametrize("when", ["scarce", "before a large step of another size"])
def test_kept_memory_is_returned(when):
    run = subprocess.run([sys.executable, "-c", _TRIM, when], capture_output=True, text=True, check=True)
    kept, with_plenty, returned = map(int, run.stdout.split())
    assert min(kept, with_plenty) > 1 << 29 > returned


@_needs_glibc
def test_the_block_of_a_large_step_is_not_mapped_again():
    def usual_page_faults(pixels: int) -> int:
        command = [sys.executable, "-c", _PROGRAM, str(pixels)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert usual_page_faults(8 * 416**2) < usual_page_faults(0) / 10  # few, since pages may be huge


@_needs_glibc
@pytest.mark.parametrize(("side", "in_calling_thread"), [(416, True), (96, False)])
def test_only_large_steps_run_in_the_thread_that_calls_them(side, in_calling_thread):
    with mock.patch.object(host_memory, "ctypes"), mock.patch.object(host_memory.jax, "config") as config:
        config.jax_platforms = "cpu"
        keep_freed_memory(8 * side**2)
    assert config.update.call_args_list == [mock.call("jax_cpu_enable_async_dispatch", False)] * in_calling_thread


def test_whether_jax_computes_on_a_cpu_is_guessed_before_it_starts(tmp_path):
    def guess(platforms: str | None, accelerator: str, plugin: str) -> bool:
        with (
            mock.patch.object(host_memory, "_ACCELERATORS", (str(tmp_path / accelerator),)),
            mock.patch.object(host_memory, "_PLUGINS", (plugin,)),
        ):
            return host_memory._is_on_cpu(platforms)

    (tmp_path / "nvidia0").touch()
    assert not guess(None, "nvidia*", "jax")
    assert guess(None, "accel*", "jax") and guess(None, "nvidia*", "no_such_plugin")
    assert guess("cpu", "nvidia*", "jax") and not guess("cuda,cpu", "accel*", "jax")


@pytest.mark.parametrize(
    ("calls", "pixels"),
    [
        (
            ["sys.argv[1:] = ['--config=configs/quickstart.py']", "runpy.run_path('train.py', run_name='__main__')"],
            [73728],
        ),
        (["yolox_jax.train('quickstart', 'runs')", "yolox_jax.evaluate('yolox_s', 'quickstart')"], [73728, None]),
    ],
)
def test_memory_is_kept_before_jax_starts_its_threads(calls, pixels):
    program = _ORDER + "".join(f"    with contextlib.suppress(SystemExit):\n        {call}\n" for call in calls)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [f"{each} False" for each in pixels]


def test_on_a_cpu_the_step_before_a_large_one_is_waited_for():
    def is_waited_for(device_platform: str, temporaries: int) -> bool:
        first, second, program = mock.Mock(), mock.Mock(), mock.Mock()
        program.memory_analysis.return_value.temp_size_in_bytes = temporaries
        make_room = host_memory.RoomForSteps(device_platform)
        make_room(program, [first])
        make_room(program, [second])
        return second.block_until_ready.called

    assert is_waited_for("cpu", 1 << 30)
    assert not is_waited_for("cpu", 1 << 20) and not is_waited_for("tpu", 1 << 30)
