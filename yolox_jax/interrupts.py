"""Ctrl-C in a program: one word and exit code 130, always. SIGTERM in train.py: one line and exit code 75.

While libraries are imported, both end the process at once. Afterwards Ctrl-C is an exception, so that a program can
write what it has. None is lost, though Python drops an exception that arises in a finalizer or in a callback such as
JAX's at each garbage collection.

Only a program calls `end_at_ctrl_c` and `end_at_sigterm`, before it imports a library; for `import yolox_jax` nothing
changes.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn, TextIO

EXIT_CODE = 128 + signal.SIGINT  # the one that shells report
MESSAGE = "\ninterrupted"
STOPPED_CODE = 75  # EX_TEMPFAIL of sysexits.h: everything is saved, and the same command resumes
STOPPED_MESSAGE = "\nSIGTERM: nothing is lost; the same command resumes"
_AGAIN_SECONDS = 0.05  # by then the finalizer has returned


class Terminated(KeyboardInterrupt):
    """SIGTERM, where a program treats it as Ctrl-C."""


class SavedInterrupt(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a run has saved its state. A notebook shows the message alone."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def end_at_ctrl_c() -> None:
    """Lets Ctrl-C end the process at once, until `as_exceptions`: a library may swallow or rename an exception."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored, as under nohup
        signal.signal(signal.SIGINT, _end)


def end_at_sigterm() -> None:
    """Lets SIGTERM end the process at once, until another handler is set, while there is nothing to save."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end_resumable)


@contextlib.contextmanager
def as_exceptions() -> Iterator[None]:
    """Turns Ctrl-C into KeyboardInterrupt, as usual, inside the block. One that Python drops is raised again."""
    if signal.getsignal(signal.SIGINT) is not _end:
        yield
        return
    hook = sys.unraisablehook

    def again(unraisable: "sys.UnraisableHookArgs") -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            number = signal.SIGTERM if issubclass(unraisable.exc_type, Terminated) else signal.SIGINT
            threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, (threading.main_thread().ident, number)).start()
        else:
            hook(unraisable)

    sys.unraisablehook = again
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end)
        sys.unraisablehook = hook


@contextlib.contextmanager
def sigterm_as_exception() -> Iterator[None]:
    """Turns SIGTERM into Terminated inside the block, which runs in the main thread."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    _exit(MESSAGE, sys.stderr, EXIT_CODE)


def _end_resumable(number: int, frame: FrameType | None) -> NoReturn:
    _exit(STOPPED_MESSAGE, sys.stdout, STOPPED_CODE)


def _exit(message: str, stream: TextIO, code: int) -> NoReturn:
    with contextlib.suppress(RuntimeError):  # the program was printing a line, which cannot be entered twice
        print(message, file=stream, flush=True)
    os._exit(code)
