"""Callbacks of a training run that is started from Python."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from yolox_jax.errors import UserError
from yolox_jax.evaluation.evaluate import EvalResult


@dataclasses.dataclass(frozen=True)
class RunStart:
    """What is known before the first step of a run, or of its remainder."""

    address: str  # the run directory
    first_step: int  # 0, or the step at which the run resumes
    total_steps: int
    steps_per_epoch: int
    records: tuple[Mapping[str, Any], ...]  # the lines of metrics.jsonl up to the first step


class Callback(Protocol):
    """The methods that a callback may have; one that it lacks is not called.

    They run in the thread of the training, between two steps, and get plain numbers and text. An error in one, or a
    SystemExit, lets the run save and end by it; a KeyboardInterrupt ends the run without a save.
    """

    def on_start(self, start: RunStart) -> None:
        """Called before the first step."""

    def on_log(self, record: Mapping[str, Any]) -> None:
        """Called every config.log_every_steps steps, with the record that metrics.jsonl gets: step, loss, time, …"""

    def on_evaluation(self, step: int, result: EvalResult) -> None:
        """Called after each evaluation, which is that of the state after this step."""


_METHODS = [name for name in vars(Callback) if name.startswith("on_")]


class Callbacks:
    """Calls each callback in turn. The first error is kept, and nothing is called after it: the run saves and ends."""

    def __init__(self, callbacks: Iterable[Any] = (), *, replace_lines: bool = False):
        """Takes the callbacks. With `replace_lines` they show the progress, and the run prints no line of it.

        Raises:
          UserError: one is a class, has none of the methods of `Callback`, or has another that begins with on_.
        """
        self._callbacks = tuple(callbacks)
        self.replace_lines = replace_lines
        self.error: Exception | SystemExit | None = None
        for callback in self._callbacks:
            if isinstance(callback, type):
                name = callback.__name__
                raise UserError(f"the class {name} is among the callbacks", f"give an object: {name}()")
            own = {name for name in dir(callback) if name.startswith("on_")}
            if not own or own - set(_METHODS):
                found = ", ".join(sorted(own - set(_METHODS))) or "no method of a callback"
                what = f"the {type(callback).__name__} among the callbacks has {found}"
                raise UserError(what, f"give an object with any of {', '.join(_METHODS)}")

    def start(self, start: RunStart) -> None:
        """Calls on_start. Raises the error of a callback."""
        self._call("on_start", start)
        self.raise_error()

    def log(self, record: Mapping[str, Any]) -> None:
        """Calls on_log, and keeps an error."""
        self._call("on_log", record)

    def evaluation(self, step: int, result: EvalResult) -> None:
        """Calls on_evaluation. Raises the error of a callback: the state is saved before each evaluation."""
        self._call("on_evaluation", step, result)
        self.raise_error()

    def raise_error(self) -> None:
        """Raises the error that was kept, if any."""
        if self.error is not None:
            raise self.error

    def _call(self, method: str, *arguments: Any) -> None:
        if self.error is not None:
            return
        try:
            for callback in self._callbacks:
                if hasattr(callback, method):
                    getattr(callback, method)(*arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (it is raised once the run is saved)
            self.error = error
