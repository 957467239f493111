"""Times the start of train.py, by phases, with an empty compilation cache and with a filled one.

python -m benchmarks.compile_time [--config=configs/quickstart.py] [--rounds=1] [--against=CHECKOUT] [-- --config.x=…]

Each measurement runs train.py until it reports step 10, twice: the second run reads the programs that the first one
compiled. --against runs another checkout of this project too, turn by turn. What follows `--` goes to train.py.
Printed are seconds of the clock and, in brackets, of the processor. "wait for the step" is from the beginning of its
trace until all of it is compiled; trace, lower and compile are of the step too, on a CPU of its gradients alone, since
the update is compiled beside them.
"""

import argparse
import importlib
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent.parent
_CACHES = "empty", "filled"
_REPORT = "step 10/"  # how train.py's line of step 10 begins
_EVENTS = {  # JAX's names
    "trace": "/jax/core/compile/jaxpr_trace_duration",
    "lower": "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "compile": "/jax/core/compile/backend_compile_duration",
}
_IN_TWO_PARTS = "trace_gradients"  # the name of what returns a function that compiles; older checkouts compile at once
_FIRST_STEP, _UNTIL_STEP_10 = "start to first step", "start to step 10"

Seconds = tuple[float, float]  # of the clock and of the processor
Phases = dict[str, Seconds]


def run_timed(checkout: Path, notes: Path, begin: float, arguments: list[str]) -> None:
    """Runs a checkout's train.py in this process, and writes a line to `notes` for each phase that ends."""
    sys.path[0] = str(checkout)
    import jax

    from yolox_jax.training import host_memory, state

    compiler, compile_name, log_class = _named_in(checkout)

    def note(phase: str, clock: float, processor: float) -> None:
        with notes.open("a") as file:
            print(json.dumps([phase, clock, processor]), file=file)

    def timed(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            clock, processor = time.time(), time.process_time()
            result = function(*args, **kwargs)
            note(phase, time.time() - clock, time.process_time() - processor)
            return result

        return run

    def imported(*args: Any) -> None:  # what train.py calls first, after its imports
        note("import", time.time() - begin, time.process_time())
        keep(*args)

    keep = host_memory.keep_freed_memory
    host_memory.keep_freed_memory = imported  # type: ignore[assignment]  # older checkouts call it without arguments
    original = getattr(compiler, compile_name)
    setattr(compiler, compile_name, _timed_in_parts(original, compile_name == _IN_TWO_PARTS, note))
    add, steps = log_class.add, list[int]()

    def add_and_note(log: Any, step: int, metrics: Any, *args: Any) -> None:
        if not steps:
            jax.block_until_ready(metrics)
            note(_FIRST_STEP, time.time() - begin, time.process_time())
        steps.append(step)
        add(log, step, metrics, *args)

    log_class.add = add_and_note
    _time_first_wait(timed)
    state.init_variables = timed("initial weights", state.init_variables)
    sys.argv = ["train.py", *arguments]
    runpy.run_path(str(checkout / "train.py"), run_name="__main__")


def _timed_in_parts(
    original: Callable[..., Any], in_two: bool, note: Callable[[str, float, float], None]
) -> Callable[..., Any]:
    """Times a function that compiles or, in two parts, traces and returns what compiles later, on the same thread."""
    import jax

    def compile_step(*args: Any) -> Any:
        own_thread, spent = threading.get_ident(), [0.0, 0.0]
        longest = dict.fromkeys(_EVENTS.values(), 0.0)  # the step's own, beside those of functions that it calls

        def listen(event: str, duration_secs: float, **_: str | int) -> None:
            if event in longest and threading.get_ident() == own_thread:
                longest[event] = max(longest[event], duration_secs)

        def part(function: Callable[..., Any], *args: Any) -> Any:
            clock, processor = time.time(), time.process_time()
            result = function(*args)
            spent[0] += time.time() - clock
            spent[1] += time.process_time() - processor
            return result

        def end(program: Any) -> Any:
            note("trace, lower, compile", *spent)
            for phase, event in _EVENTS.items():
                note(phase, longest[event], 0.0)
            return program

        jax.monitoring.register_event_duration_secs_listener(listen)
        traced = part(original, *args)
        return (lambda: end(part(traced))) if in_two else end(traced)

    return compile_step


def _time_first_wait(timed: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
    """Times the first wait of the training loop for a program, which is that of the step."""
    from yolox_jax.training.compilation import Programs

    get = Programs.get

    def get_timed(*args: Any, **kwargs: Any) -> Any:
        Programs.get = get  # type: ignore[method-assign]
        return timed("wait for the step", get)(*args, **kwargs)

    Programs.get = get_timed  # type: ignore[method-assign]


def _named_in(checkout: Path) -> tuple[Any, str, Any]:
    """What compiles a training step in this checkout, its name there, and the class of the run's log."""
    training = checkout / "yolox_jax" / "training"
    log_name = "run_log" if (training / "run_log.py").exists() else "logging"  # in older checkouts
    log_class = importlib.import_module(f"yolox_jax.training.{log_name}").RunLog
    if (training / "halves.py").exists():
        halves = importlib.import_module("yolox_jax.training.halves").Halves
        name = _IN_TWO_PARTS if hasattr(halves, _IN_TWO_PARTS) else "compile_gradients"
        return halves, name, log_class
    return importlib.import_module("yolox_jax.training.parallel"), "compile_step", log_class


def measure(checkout: Path, cache: str, arguments: list[str]) -> Phases:
    """Runs a checkout's train.py in a process of its own until it reports step 10, and ends it."""
    with tempfile.TemporaryDirectory() as folder:
        notes, begin, used = Path(folder) / "notes", time.time(), _seconds_of_children()
        process = subprocess.Popen(
            [sys.executable, __file__, "--run", checkout, notes, str(begin), *arguments, f"--workdir={folder}/run"],
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
            cwd=checkout,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        reported = any(line.startswith(_REPORT) for line in process.stdout)
        seconds = time.time() - begin
        process.kill()
        process.communicate()
        if not reported:
            raise SystemExit(f"{checkout}: train.py ended before step 10")
        phases = {phase: (clock, processor) for phase, clock, processor in map(json.loads, notes.open())}
    return {**phases, _UNTIL_STEP_10: (seconds, _seconds_of_children() - used)}


def _seconds_of_children() -> float:
    return sum(os.times()[2:4])


def print_table(title: str, rounds: dict[str, list[Phases]]) -> None:
    """Prints the median of each phase by checkout and, of two checkouts, the ratio of the clock in each round."""
    ours, *others = rounds.values()
    print(f"{title}: {' and '.join(rounds)}")
    for phase in ours[0]:
        line = f"  {phase:<24}"
        for measured in rounds.values():
            clock, processor = (statistics.median(each[phase][column] for each in measured) for column in (0, 1))
            line += f"{clock:>8.1f} s" + (f" ({processor:>5.1f} s)" if processor else " " * 10)
        for other in others:
            ratios = [a[phase][0] / b[phase][0] for a, b in zip(ours, other, strict=True)]
            line += f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line, flush=True)


def main() -> None:
    from benchmarks import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--rounds", type=int, default=1, help="pairs of runs of each checkout; medians are printed")
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("overrides", nargs="*", help="more arguments of train.py, after --")
    arguments = machine.parse_quiet(parser)
    checkouts = {"this checkout": _HERE}
    if arguments.against:
        checkouts[arguments.against.name] = arguments.against.resolve()
    found: dict[str, dict[str, list[Phases]]] = {cache: {name: [] for name in checkouts} for cache in _CACHES}
    for _ in range(arguments.rounds):
        for name, checkout in checkouts.items():
            with tempfile.TemporaryDirectory() as folder:
                for cache in _CACHES:
                    phases = measure(checkout, folder, [f"--config={arguments.config}", *arguments.overrides])
                    found[cache][name].append(phases)
    for cache in _CACHES:
        print_table(f"{cache} compilation cache", found[cache])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:  # a process that is measured, before it imports anything else
        run_timed(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])
    else:
        main()
