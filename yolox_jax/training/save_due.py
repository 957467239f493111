"""Decides when to save, and when to stop early."""

import time
from collections.abc import Mapping

import jax

from yolox_jax.errors import UserError
from yolox_jax.training import hosts


class SaveDue:
    """Decides when to save: every so many steps, every so many minutes, or both.

    With several processes the clock of process 0 counts; the others ask for it every `ask_every` steps.
    """

    def __init__(self, every_steps: int | None, every_minutes: float | None, ask_every: int = 10):
        """Raises a UserError if a number is too small for its field of the config."""
        if every_steps is not None and every_steps < 1:
            raise UserError(f"config.checkpoint.every_steps is {every_steps}", "give 1 or more, or None for never")
        if every_minutes is not None and every_minutes < 0:
            raise UserError(f"config.checkpoint.every_minutes is {every_minutes}", "give 0 or more, or None for never")
        if ask_every < 1:
            raise UserError(f"config.log_every_steps is {ask_every}", "give 1 or more")
        self._every_steps = every_steps
        self._ask_every = ask_every
        self._every_seconds = None if every_minutes is None else 60 * every_minutes
        self._since = time.monotonic()  # the wall clock can go backwards

    def note_save(self) -> None:
        """Restarts the count of minutes."""
        self._since = time.monotonic()

    def __call__(self, step: int) -> bool:
        """Returns whether to save after step `step`, counted from 0."""
        by_steps = self._every_steps is not None and (step + 1) % self._every_steps == 0
        by_time = self._every_seconds is not None and time.monotonic() - self._since >= self._every_seconds
        if jax.process_count() > 1:
            by_time = (step + 1) % self._ask_every == 0 and bool(hosts.broadcast_from_primary(by_time))
        return by_steps or by_time


def has_stalled(ap_by_step: Mapping[int, float], patience: int | None, step: int) -> bool:
    """Returns whether none of the last `patience` evaluations up to `step` beats the best one before them.

    Never with `patience` None. Evaluations before the first AP of 0 or more do not count: -1 means that no box was
    there to be found.

    Depends on the recorded APs alone, so a resumed run stops at the same step as one that was never interrupted.

    Raises:
      UserError: `patience` is less than 1.
    """
    if patience is None:
        return False
    if patience < 1:
        raise UserError(f"config.patience is {patience}", "give 1 or more, or None for never")
    aps = [ap for evaluated, ap in sorted(ap_by_step.items()) if evaluated <= step and ap >= 0]
    return len(aps) > patience and max(aps[-patience:]) <= max(aps[:-patience])
