"""A trace of a few steps, for TensorBoard's profiler or ui.perfetto.dev."""

import contextlib
from pathlib import Path
from typing import Self

import jax

_WARM = 3  # steps before the trace: the first ones fill the pipeline


class StepTrace:
    """Traces `num_steps` steps from a little after `first_step`; none where that is 0."""

    def __init__(self, folder: Path, first_step: int, num_steps: int):
        self._folder = folder
        self._begin = first_step + _WARM
        self._end = self._begin + num_steps
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def at(self, step: int, last: object) -> None:
        """To be called before each step; `last` is what the one before gave, which is awaited at both ends."""
        if self._begin == self._end:
            return
        if step == self._begin:
            jax.block_until_ready(last)
            self._open.enter_context(jax.profiler.trace(self._folder, create_perfetto_trace=True))
        elif step == self._end:
            jax.block_until_ready(last)
            self._open.close()
            print(f"a trace of steps {self._begin + 1} to {self._end} is in {self._folder}")

    def __exit__(self, *exception: object) -> None:
        self._open.close()
