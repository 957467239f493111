"""A run asked to stop: by SIGTERM (a spot machine is taken away), or by Ctrl-C."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: saved whole, the same command goes on


class Stopped(Exception):
    """The run was asked to stop and has saved where it was."""


class StopRequest:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.signal_name = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self and number == signal.SIGINT:  # Ctrl-C again: at once, then
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        print(f"\n{self.signal_name}: the step is finished and saved, then the run ends", flush=True)


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turns SIGTERM and Ctrl-C into a request for the while; a second Ctrl-C is a KeyboardInterrupt as ever."""
    request = StopRequest()
    former = {number: signal.signal(number, request._note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
