"""Checks that a process can open more files, before a library waits minutes and fails."""

import resource
from pathlib import Path

from yolox_jax.errors import UserError

_OPEN = Path("/proc/self/fd")  # Linux


def check_free(needed: int, what: str) -> None:
    """Raises a UserError if this process may not open as many more files as `what` needs."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or not _OPEN.is_dir():
        return
    num_open = len(list(_OPEN.iterdir()))
    if limit - num_open < needed:
        raise UserError(
            f"{num_open} of {limit} files that this process may open are open, and {what} needs at least {needed}",
            "raise the limit, with ulimit -n 4096 for example",
        )
