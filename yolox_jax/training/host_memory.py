"""Memory of the host that programs for the CPU take and give back at every step."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h
_NEVER = 2**31 - 1


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
