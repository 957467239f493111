"""Keeps the memory that XLA:CPU frees after each step for the next one, but not for a step of another size."""

import ctypes
import glob
import importlib.util
import math
import os
import platform
from pathlib import Path
from typing import Any

import jax

from yolox_jax.training.hosts import TPU_FILES

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h
_NEVER = 2**31 - 1
_FEW_PIXELS = 2**17  # the block of nano then is below 64 MiB, the most that malloc keeps of a thread's
_PLUGINS = "jax_plugins", "libtpu"  # with which JAX computes on a GPU or TPU
_ACCELERATORS = ("/dev/nvidia*", "/dev/dxg", "/dev/kfd", *TPU_FILES)  # NVIDIA's, in WSL, AMD's
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
_ENOUGH = 3 * 10**9  # bytes: while less is held, keeping is free
_LARGE = 10**8  # bytes: a step with less takes so little time that waiting for the one before would show


def keep_freed_memory(batch_pixels: float = math.inf) -> None:
    """Makes malloc keep freed memory on a CPU. Call it before JAX starts its threads. Does nothing without glibc.

    XLA:CPU allocates the temporaries of a step as one block and frees it afterwards. By default malloc unmaps that
    block, and the system maps and zeroes its pages again at the next step, which takes a third of the processor's time.
    Of a thread's large blocks malloc would do so whatever it is told, so steps then run in the thread that calls them,
    the main one. Steps on few pixels have no such block, and run while the next one is called (benchmarks/NOTES.md).

    Args:
      batch_pixels: of all images of a training step.
    """
    if platform.libc_ver()[0] != "glibc" or not _is_on_cpu(jax.config.jax_platforms):  # type: ignore[attr-defined]
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap
    mallopt(_M_TRIM_THRESHOLD, _NEVER)  # the end of the heap is never returned
    if batch_pixels > _FEW_PIXELS:
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def _is_on_cpu(platforms: str | None) -> bool:
    """Guesses if JAX, asked for these platforms or for none, computes on a CPU: to ask it would start its threads."""
    if platforms:
        return platforms == "cpu"
    has_plugin = any(importlib.util.find_spec(name) for name in _PLUGINS)
    return not (has_plugin and any(glob.glob(name) for name in _ACCELERATORS))


def trim_memory() -> None:
    """Returns kept memory to the system if this process holds more than half of all memory."""
    _trim_above(_total_bytes() / 2)


class RoomForSteps:
    """Before a large step on a CPU, waits for what it reads; before one of another image size, returns kept memory.

    XLA:CPU takes the block of a step when it is called: without waiting for the step before there would be two. Nor
    does it run a step in the thread that calls it, whose blocks malloc keeps, until all that the step reads is there.
    The blocks of different sizes cannot replace each other, so kept memory would grow with every size of multi-scale
    training; unless both are small, it is returned, and the system maps and zeroes the pages of one step anew
    (benchmarks/NOTES.md). On a GPU or TPU a step's blocks are not host memory, and nothing is done.
    """

    def __init__(self, device_platform: str) -> None:
        self._is_on_host = device_platform == "cpu"
        self._last: Any = None
        self._block_bytes = 0

    def __call__(self, program: Any, arguments: Any) -> None:
        """Takes the compiled program of the next step, and what it is called with."""
        if not self._is_on_host:
            return
        is_other = program is not self._last
        if is_other:
            self._last, self._block_bytes = program, _block_bytes(program)
        if is_other or self._block_bytes > _LARGE:  # what a step still uses cannot be returned
            jax.block_until_ready(arguments)
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
