"""Freed memory stays with the process, until memory is scarce."""

import platform
import subprocess
import sys
from unittest import mock

import pytest

from yolox_jax.training import host_memory

_PROGRAM = """
import resource, sys
import numpy as np
from yolox_jax.training.host_memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
np.ones(1 << 24)  # 128 MiB, freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
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
def test_a_freed_block_is_not_mapped_again():
    def page_faults(how: str) -> int:
        run = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert page_faults("keep") < page_faults("do nothing") / 10  # few, since pages may be huge


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
