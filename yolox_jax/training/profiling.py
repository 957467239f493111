"""Traces a few steps for TensorBoard's profiler or ui.perfetto.dev."""

import contextlib
from pathlib import Path
from typing import Self

import jax

from yolox_jax.errors import UserError

_NUM_WARM_UP = 3  # steps before the trace: the first ones fill the pipeline


class StepTrace:
    """Traces `num_steps` steps, beginning a few steps after `first_step`. With 0 steps it does nothing."""

    def __init__(self, folder: Path, first_step: int, num_steps: int):
        """Raises a UserError if `num_steps` is negative."""
        if num_steps < 0:
            raise UserError(f"config.profile is {num_steps}", "give the number of steps to trace, or 0 for none")
        self._folder = folder
        self._begin = first_step + _NUM_WARM_UP
        self._end = self._begin + num_steps
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def at(self, step: int, last: object) -> None:
        """Call this before each step. `last` is the output of the previous step; both ends of the trace wait for it."""
        if self._begin == self._end:
            return
        if step == self._begin:
            jax.block_until_ready(last)
            self._open.enter_context(jax.profiler.trace(self._folder, create_perfetto_trace=True))
        elif step == self._end:
            jax.block_until_ready(last)
            self._open.close()
            print(f"traced steps {self._begin + 1} to {self._end} into {self._folder}")

    def __exit__(self, *exception: object) -> None:
        self._open.close()
