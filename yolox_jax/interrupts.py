"""Ctrl-C in the first seconds of a program, in which its libraries are imported: one word and exit code 130.

Only a program calls `end_at_ctrl_c`, before it imports a library; for `import yolox_jax` nothing changes.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

EXIT_CODE = 128 + signal.SIGINT  # the one that shells report
MESSAGE = "\ninterrupted"


def end_at_ctrl_c() -> None:
    """Lets Ctrl-C end the process at once, until `as_exceptions`: a library may swallow or rename an exception."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored, as under nohup
        signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def as_exceptions() -> Iterator[None]:
    """Turns Ctrl-C into KeyboardInterrupt, as usual, inside the block."""
    if signal.getsignal(signal.SIGINT) is not _end:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    with contextlib.suppress(RuntimeError):  # the program was printing a line, which cannot be entered twice
        print(MESSAGE, file=sys.stderr, flush=True)
    os._exit(EXIT_CODE)
