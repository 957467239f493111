"""A run asked to stop: by SIGTERM (a spot machine is taken away), or by Ctrl-C."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: saved whole, the same command goes on


class Stopped(Exception):
    """The run was asked to stop and has saved where it was."""


class StopRequest:
    """Whether the run was asked to stop.

    Of several processes, one that is asked tells the others through jax's preemption service, and all stop at the same
    step.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._num_checks = 0

    def check(self) -> bool:
        """Whether to stop now. Every process must ask equally often: once a step and once a batch of evaluation."""
        if jax.process_count() == 1:
            return bool(self.signal_name)
        self._num_checks += 1
        if not multihost_utils.reached_preemption_sync_point(self._num_checks):
            return False
        self.signal_name = self.signal_name or signal.SIGTERM.name
        return True

    def is_urgent(self) -> bool:
        """Whether to give up waiting at once; of several processes none may do so alone."""
        return bool(self.signal_name) and jax.process_count() == 1

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name and number == signal.SIGINT:  # Ctrl-C again: at once, then
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        print(f"\n{self.signal_name}: the step is finished and saved, then the run ends", flush=True)
        if jax.process_count() > 1:  # jax's service listens to SIGTERM
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turns SIGTERM and Ctrl-C into a request for the while; a second Ctrl-C is a KeyboardInterrupt as ever."""
    request = StopRequest()
    own_signals = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
    former = {number: signal.signal(number, request._note) for number in own_signals}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
