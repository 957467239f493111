"""Stops a run on SIGTERM (a spot machine is taken away) or Ctrl-C, after it has saved its state."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

from yolox_jax import interrupts

EXIT_CODE = interrupts.STOPPED_CODE


class Stopped(Exception):
    """The run was asked to stop and has saved its state."""


class StopRequest:
    """Records whether the run was asked to stop.

    With several processes, one that is asked informs the others through JAX's preemption service, and all stop at the
    same step.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._num_checks = 0

    def check(self) -> bool:
        """Returns whether to stop now. All processes must call this equally often: once a step or evaluated batch."""
        if jax.process_count() == 1:
            return bool(self.signal_name)
        self._num_checks += 1
        if not multihost_utils.reached_preemption_sync_point(self._num_checks):
            return False
        self.signal_name = self.signal_name or signal.SIGTERM.name
        return True

    def is_urgent(self) -> bool:
        """Returns whether to stop waiting at once: never with several processes, since none may leave alone."""
        return bool(self.signal_name) and jax.process_count() == 1

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name and number == signal.SIGINT:  # a second Ctrl-C ends the program at once
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        with contextlib.suppress(RuntimeError):  # the program was printing a line, which cannot be entered twice
            print(f"\n{self.signal_name}: the run ends after this step, once it is saved", flush=True)
        if jax.process_count() > 1:  # JAX's preemption service listens for SIGTERM
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turns SIGTERM and Ctrl-C into a StopRequest inside the block; a second Ctrl-C is a KeyboardInterrupt as usual.

    Python delivers signals to the main thread only: in another thread the request never comes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    own_signals = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
    previous = {number: signal.signal(number, request._note) for number in own_signals}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def sigterm_ends() -> contextlib.AbstractContextManager[None]:
    """Lets SIGTERM end the program inside the block, where nothing is to be saved, with EXIT_CODE and one line.

    With several processes it is left to JAX's preemption service, which reports it to StopRequest.
    """
    return contextlib.nullcontext() if jax.process_count() > 1 else interrupts.sigterm_as_exception()


@contextlib.contextmanager
def sigterm_noted(message: str) -> Iterator[None]:
    """Prints `message` if SIGTERM arrives inside the block, the last work of a program, instead of ending it.

    With several processes JAX's preemption service does not let SIGTERM end them either.
    """
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # as in StopRequest
            print(f"\nSIGTERM: {message}", flush=True)

    previous = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
