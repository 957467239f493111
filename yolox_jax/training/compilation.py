"""Compiles programs ahead of their first use in the background, and counts every compilation."""

import functools
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from concurrent import futures
from typing import Any, Self

import jax
from jax._src import compilation_cache  # what it compresses by has no public name

from yolox_jax.cache_folder import cache_folder
from yolox_jax.errors import UserError
from yolox_jax.training import hosts

logger = logging.getLogger("yolox_jax.training")

_THREAD = "compile ahead"
_COMPILED = "/jax/core/compile/backend_compile_duration"
_POLL_SECONDS = 0.2  # between two checks whether the run was asked to stop
_SWITCH_SECONDS = 1e-3  # ours: Python's 5 ms, waited for many times in a step, slow the steps beside a trace
_FIRST_STEPS = 10  # ours: as many as the first line of progress reports

Compile = Callable[[], Any]  # compiles a program and returns it
Keys = Collection[Hashable]
ByKey = Mapping[Hashable, Callable[[], Compile]]  # functions that trace a program and return what compiles it


class Programs:
    """Compiles programs one after another while the first ones already run."""

    def __init__(self, in_order: ByKey, beside_first: ByKey | None = None, late: Collection[Hashable] = ()):
        """Takes the functions that trace, in the order in which their programs are first used.

        Each program is compiled after the one before it, and traced while that one compiles. Those of `beside_first`
        are compiled beside the first, and the second after them. A program that is `late` is not traced ahead, nor
        before the first steps are made, which would wait for it. Until the block is left, Python's threads take turns
        more often, since one that traces a program holds up the training loop.
        """
        keys, beside = list(in_order), dict(beside_first or {})
        self._trace_by_key = {**in_order, **beside}
        self._results: dict[Hashable, futures.Future[Any]] = {key: futures.Future() for key in self._trace_by_key}
        self._passed_barrier: set[Hashable] = set()
        self._late, self._late_begin, self._num_asked = frozenset(late), threading.Event(), 0
        self._closed = False
        # Each with the programs that are there before it is traced, and before it is compiled.
        turns: list[tuple[Hashable, Keys, Keys]] = [(key, (), ()) for key in (*keys[:1], *beside)]
        traced_after: Keys = ()
        compiled_after: Keys = list(beside) or keys[:1]
        for one_before, key in itertools.pairwise(keys):
            turns.append((key, compiled_after if key in self._late else traced_after, compiled_after))
            traced_after, compiled_after = [one_before], [key]
        # Daemons: a compilation cannot be interrupted, and a run that is asked to stop must not wait for it.
        self._threads = [threading.Thread(target=self._work, args=turn, name=_THREAD, daemon=True) for turn in turns]

    def __enter__(self) -> Self:
        self._switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._closed = True
        self._late_begin.set()
        sys.setswitchinterval(self._switch_seconds)
        if kind is None:  # a finished run can wait, and Python cannot exit during a compilation
            for thread in self._threads:
                thread.join()

    def _work(self, key: Hashable, traced_after: Keys, compiled_after: Keys) -> None:
        try:
            if key in self._late:
                self._late_begin.wait()
            self._wait_all(traced_after)
            compile_traced = self._trace_by_key[key]()
            self._wait_all(compiled_after)
            self._results[key].set_result(compile_traced())
        except BaseException as error:  # noqa: BLE001  (`get` raises it)
            self._results[key].set_exception(error)

    def _wait_all(self, keys: Keys) -> None:
        """Waits until programs are compiled, or have failed. Raises CancelledError if the block was left meanwhile."""
        futures.wait([self._results[key] for key in keys])
        if self._closed:
            raise futures.CancelledError

    def wait(self, key: Hashable) -> Any:
        """Waits for a compiled program and returns it, for another one that needs it."""
        return self._results[key].result()

    def get(self, key: Hashable, give_up: Callable[[], bool] = lambda: False) -> Any:
        """Waits for a compiled program and returns it, or None once `give_up` returns True.

        Raises the error of its compilation. With several processes, returns only when all have compiled; otherwise the
        first collective would time out.
        """
        self._num_asked += 1
        # A program other than the first may be behind a late one.
        if self._num_asked > _FIRST_STEPS or key in self._late or self._passed_barrier - {key}:
            self._late_begin.set()
        result = self._results[key]
        while not futures.wait([result], timeout=_POLL_SECONDS).done:
            if give_up():
                return None
        program = result.result()
        if key not in self._passed_barrier:
            hosts.barrier(f"program {key}")
            self._passed_barrier.add(key)
        return program


def of_run(
    uses: Sequence[Hashable],
    trace_step: Callable[[Any], Compile],
    compile_evaluation: Compile,
    beside_first: ByKey | None = None,
) -> Programs:
    """Returns the programs of a run in the order of its uses: evaluation for "predict", else a step of that size."""
    in_order: ByKey = {
        use: (lambda: compile_evaluation) if use == "predict" else functools.partial(trace_step, use) for use in uses
    }
    return Programs(in_order, beside_first, late=["predict"])


def is_compiling() -> bool:
    """Returns whether a thread is still compiling. Python cannot end such a thread: the process must exit at once."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


def wait() -> None:
    """Waits for the compilations that are left of runs that were stopped. Python would crash if it exits meanwhile."""
    for thread in threading.enumerate():
        if thread.name == _THREAD:
            thread.join()


class CompileCounter:
    """Counts the programs that this process compiles or reads from the compilation cache."""

    def __init__(self) -> None:
        self.num_programs = 0
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILED:
            self.num_programs += 1


def enable_compilation_cache() -> None:
    """Turns on JAX's compilation cache, in JAX_COMPILATION_CACHE_DIR if set, else in programs/ of cache_folder().

    Its files are compressed by zlib, whose checksum finds a flipped bit, and the program is then compiled again. JAX
    would take zstandard if it is installed, without a checksum: a flipped bit then crashes the process. Small programs
    are kept too, which JAX leaves out: a start has dozens of them.
    """
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    for library in ("zstd", "zstandard"):
        if hasattr(compilation_cache, library):
            setattr(compilation_cache, library, None)
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
        compilation_cache.reset_cache()  # at its first compilation, JAX decides whether there is a cache
    except UserError as error:  # slower starts, but no reason to stop
        logger.warning("the compilation cache is off: %s", error)
