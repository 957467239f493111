"""How the programs speak to a person at a terminal."""

import contextlib
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags
from absl import logging as absl_logging

from yolox_jax.cli import commands
from yolox_jax.data.views.naming import SampleError
from yolox_jax.training import compilation, hosts
from yolox_jax.training.interruption import EXIT_CODE, Stopped
from yolox_jax.training.run_directory import RunDirectoryError
from yolox_jax.training.run_log import TrainingBrokeDown
from yolox_jax.weights.checkpoint import CheckpointError

_INTERRUPTED = 128 + signal.SIGINT  # as shells report it

_DEBUG = flags.DEFINE_boolean("debug", False, "Show where in the code an error arose.")


def run_program(main: Callable[[], None]) -> None:
    """Parses the flags, where a mistake in the config's name, fields or recipe is one message too, and runs the program."""

    def without_arguments(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unknown argument {argv[1]!r}: config fields are set by --config.name=value")
        main()

    app.run(without_arguments, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        rest: list[str] = flags.FLAGS(commands.prepare(argv))
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    except flags.Error as error:
        first, *others = str(error).strip().splitlines()
        if others and others[-1].strip().startswith("ValueError: "):  # the end of a traceback into the config's file
            others = [others[-1].strip().removeprefix("ValueError: ")]
        sys.exit("\n".join([f"error: {first}", *others]))
    except AttributeError as error:  # ml_collections wraps a KeyError, whose text has the field and its like
        named = next((cause.args[0] for cause in error.args if isinstance(cause, KeyError)), error)
        sys.exit(f"error: --config has no field {named}")
    return rest


def quiet_libraries() -> None:
    """Leaves the terminal to the program: the libraries log every checkpoint file, and the traceback of every error that
    they raise as well. --debug shows what they warn of; what this package warns of is always shown."""
    absl_logging.set_verbosity(absl_logging.WARNING if _DEBUG.value else absl_logging.FATAL)
    logging.getLogger("yolox_jax").setLevel(logging.WARNING)
    if not _DEBUG.value:
        # A save that fails is told of once, by its error: what was being written beside it ends in threads of its own.
        sys.unraisablehook = _pass_over_closed_loops
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _pass_over_closed_loops(unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns an error that names what is wrong and what to do into that message and exit code 1; --debug shows all.

    A run that was asked to stop and saved ends with code 75, Ctrl-C elsewhere with one word and 130.
    """
    try:
        yield
    except (ValueError, OSError, SampleError, TrainingBrokeDown, CheckpointError, RunDirectoryError) as error:
        if _DEBUG.value:
            raise
        _leave(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:
        if _DEBUG.value or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _leave(
            f"error: the memory of a device is full ({str(error).splitlines()[0]}): lower config.batch_size or "
            "config.input_size, or use more devices with --config.parallel.shard_state=true"
        )
    except Stopped as stopped:
        print(stopped)
        _leave(EXIT_CODE)
    except KeyboardInterrupt:
        if _DEBUG.value:
            raise
        print("\ninterrupted", file=sys.stderr)
        _leave(_INTERRUPTED)


def _leave(code: int | str) -> NoReturn:
    """Ends the program; at once where a compilation goes on in the background, which Python would not survive."""
    if compilation.is_compiling():
        if isinstance(code, str):
            print(code, file=sys.stderr)
        hosts.exit_at_once(code if isinstance(code, int) else 1)
    sys.exit(code)


def make_parent_dirs(*files: str | None) -> None:
    """Makes the folders of files that are to be written, where named: to be called before work that would be lost."""
    for file in filter(None, files):
        Path(file).parent.mkdir(parents=True, exist_ok=True)


def print_progress(num_done: int, num_all: int | None, what: str = "evaluated", unit: str = "images") -> None:
    """Tells how many are done: one changing line on a terminal, elsewhere a line at the end; None: no end is known."""
    line = f"{what} {num_done}{'' if num_all is None else f'/{num_all}'} {unit}"
    if sys.stdout.isatty():
        print(f"\r{line}", end="\n" if num_done == num_all else "", flush=True)
    elif num_done == num_all:
        print(line, flush=True)
