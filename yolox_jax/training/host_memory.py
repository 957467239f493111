"""Memory of the host that programs for the CPU take and give back at every step."""

import ctypes
import os
import platform
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h
_NEVER = 2**31 - 1
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def keep_freed_memory() -> None:
    """Makes malloc keep what is freed, for the next step; call it before threads start. Only glibc can.

    XLA:CPU takes the temporaries of a step as one block and frees it after. By default the system then unmaps it, and
    maps and zeroes its pages again at the next step: 300,000 page faults and a third of the processor's time (nano, 8×416×416);
    with this none.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_ARENA_MAX, 1)  # the arenas of other threads hold no large blocks
    mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap
    mallopt(_M_TRIM_THRESHOLD, _NEVER)  # whose end is never given back


def trim_memory() -> None:
    """Gives the system what was kept, where this process holds more than half of the memory there is.

    Programs of several image sizes have blocks of several sizes, which do not take each other's place: nano with eleven
    sizes would come to hold 12 GB.
    """
    if platform.libc_ver()[0] == "glibc" and _resident_bytes() > _all_bytes() / 2:
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _all_bytes() -> int:
    """Of the machine, or of the container that this runs in."""
    of_machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.exists() else "max"
    return min(of_machine, int(limit)) if limit.isdecimal() else of_machine
