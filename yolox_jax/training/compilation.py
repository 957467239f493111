"""Programs compiled ahead, on a thread of their own, in the order of their first use; and how many ever were."""

import os
import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import jax

from yolox_jax.training import hosts

_THREAD = "compiles ahead"
_COMPILED = "/jax/core/compile/backend_compile_duration"
_PATIENCE = 0.2  # seconds between two looks at whether the run was asked to stop


ByKey = Mapping[Hashable, Callable[[], Any]]  # functions that compile


class Programs:
    """Compiles one program after another while the first ones run already."""

    def __init__(self, compile_by_key: ByKey):
        """The functions that compile, in the order in which their programs will be wanted."""
        self._results: dict[Hashable, Future[Any]] = {key: Future() for key in compile_by_key}
        self._met: set[Hashable] = set()
        self._closed = False
        # A daemon, since a compilation cannot be interrupted and a run that is asked to stop must not wait for it.
        self._thread = threading.Thread(target=self._work, args=(compile_by_key,), name=_THREAD, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._closed = True
        if kind is None:  # a run at its end has time, and Python does not survive a compilation
            self._thread.join()

    def _work(self, compile_by_key: ByKey) -> None:
        for key, compile_one in compile_by_key.items():
            if self._closed:
                return
            try:
                self._results[key].set_result(compile_one())
            except BaseException as error:  # noqa: BLE001  (raised where the program is wanted)
                self._results[key].set_exception(error)

    def get(self, key: Hashable, give_up: Callable[[], bool] = lambda: False) -> Any:
        """The compiled program, waited for; None where `give_up` says yes meanwhile. Raises what compiling it raised.

        Of several processes none gets a program before all have it: its collectives would wait for the others, not for long.
        """
        while True:
            try:
                program = self._results[key].result(timeout=_PATIENCE)
                break
            except TimeoutError:
                if give_up():
                    return None
        if key not in self._met:
            hosts.barrier(f"program {key}")
            self._met.add(key)
        return program


def is_compiling() -> bool:
    """Whether a thread is compiling ahead: Python cannot end such a thread, so the process must end at once."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


class CompileCounter:
    """Counts the programs that this process compiles or reads from the persistent cache."""

    def __init__(self) -> None:
        self.num_programs = 0
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILED:
            self.num_programs += 1


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next start finds them; JAX_COMPILATION_CACHE_DIR says elsewhere where."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "yolox_jax" / "programs"))
