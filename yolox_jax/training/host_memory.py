"""Keeps the memory that XLA:CPU frees after each step for the next one, but not for a step of another size."""

import ctypes
import os
import platform
from pathlib import Path
from typing import Any

import jax

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h
_NEVER = 2**31 - 1
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
_ENOUGH = 3 * 10**9  # bytes: while less is held, keeping is free
_LARGE = 10**8  # bytes: a step with less takes so little time that waiting for the one before would show


def keep_freed_memory() -> None:
    """Makes malloc keep freed memory. Call it before threads start. Does nothing without glibc.

    XLA:CPU allocates the temporaries of a step as one block and frees it afterwards. By default malloc unmaps that
    block, and the system maps and zeroes its pages again at the next step, which takes a third of the processor's time
    (benchmarks/NOTES.md).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_ARENA_MAX, 1)  # the arenas of other threads cannot hold large blocks
    mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap
    mallopt(_M_TRIM_THRESHOLD, _NEVER)  # the end of the heap is never returned


def trim_memory() -> None:
    """Returns kept memory to the system if this process holds more than half of all memory."""
    _trim_above(_total_bytes() / 2)


class RoomForSteps:
    """Before a large step on a CPU, waits for the one before it; before one of another image size, returns kept memory.

    XLA:CPU takes the block of a step when it is called: without waiting there would be two. The blocks of different
    sizes cannot replace each other, so kept memory would grow with every size of multi-scale training; unless both are
    small, it is returned, and the system maps and zeroes the pages of one step anew (benchmarks/NOTES.md). On a GPU or
    TPU a step's blocks are not host memory, and nothing is done.
    """

    def __init__(self, device_platform: str) -> None:
        self._is_on_host = device_platform == "cpu"
        self._last: Any = None
        self._block_bytes = 0

    def __call__(self, program: Any, train_state: Any) -> None:
        """Takes the compiled program of the next step, and the state that the step before returned."""
        if not self._is_on_host:
            return
        is_other = program is not self._last
        if is_other:
            self._last, self._block_bytes = program, _block_bytes(program)
        if is_other or self._block_bytes > _LARGE:  # what a step still uses cannot be returned
            jax.block_until_ready(train_state)
        if is_other:
            _trim_above(min(_ENOUGH, _total_bytes() / 2) - self._block_bytes)


def _block_bytes(program: Any) -> int:
    """The size of a compiled program's temporaries; 0 if it is unknown, as of a step mapped by pmap."""
    memory = program.memory_analysis() if hasattr(program, "memory_analysis") else None
    return memory.temp_size_in_bytes if memory else 0


def _trim_above(most_bytes: float) -> None:
    if platform.libc_ver()[0] == "glibc" and _resident_bytes() > most_bytes:
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _total_bytes() -> int:
    """Memory of the machine, or of the container if its limit is lower."""
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.exists() else "max"
    return min(machine_bytes, int(limit)) if limit.isdecimal() else machine_bytes
