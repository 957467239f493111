"""Flags, errors and exit codes of the programs: everything between them and a terminal."""

import atexit
import contextlib
import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from yolox_jax import interrupts
from yolox_jax.cli import commands, config_values, libraries
from yolox_jax.cli.augment_preset import apply_preset
from yolox_jax.errors import UserError
from yolox_jax.training import compilation, hosts
from yolox_jax.training.interruption import EXIT_CODE, Stopped

_DEBUG = flags.DEFINE_boolean("debug", False, "Show the traceback of every error, and the warnings of the libraries.")


def run_program(main: Callable[[], None]) -> None:
    """Parses the flags and runs the program. A mistake in a flag or in --config is one message and exit code 1."""

    def without_arguments(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unknown argument {argv[1]!r}: set config fields by --config.name=value")
        main()

    app.run(without_arguments, flags_parser=parse_flags)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags, and returns the program's name and its other arguments. A mistake ends it with one message."""
    _show_any_text()
    _end_without_output()
    try:
        config_values.check_names(argv[1:])
        rest: list[str] = flags.FLAGS(commands.prepare(argv))
        if "config" in flags.FLAGS and isinstance(config := flags.FLAGS["config"].value, ConfigDict):
            config_values.check_numbers(config)
            apply_preset(config, config_flags.get_override_values(flags.FLAGS["config"]))
    except UserError as error:
        sys.exit(f"error: {error}")
    except flags.Error as error:
        # A UserError of the config's file arrives wrapped by ml_collections and absl.
        sys.exit(f"error: {_wrapped_user_error(error) or error}")
    except AttributeError as error:
        # ml_collections wraps a KeyError, whose text has the unknown field and a similar one.
        unknown = next((cause for cause in error.args if isinstance(cause, KeyError)), None)
        if unknown is None:
            raise
        sys.exit(f"error: --config has no field {unknown.args[0]}")
    except KeyError as error:  # of a field below one that is missing
        if not _is_of(error, "ml_collections"):  # an error in the config's file keeps its traceback
            raise
        sys.exit(f"error: --config has no field {error.args[0]}")
    return rest


# Control characters but tab and newline, and those that change the order or end of a line: they act on a terminal.
_ACTIVE = [*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_AS_ESCAPES = {code: repr(chr(code))[1:-1] for code in _ACTIVE if chr(code) not in "\t\n"}


def _show_any_text() -> None:
    """Prints characters as escapes that the terminal's encoding lacks, or that would act on it.

    They are in names of classes and files, and in help. A "\\r" with which a text begins is that of `print_progress`.
    """
    os.environ["PYTHON_COLORS"] = "0"  # Python 3.13 colors tracebacks, which would be shown as escapes
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            # In place, since logging holds the streams. mypy: methods are not meant to be replaced.
            stream.write = functools.partial(_write_escaped, stream.write)  # type: ignore[method-assign]


def _write_escaped(write: Callable[[str], int], text: str) -> int:
    start = "\r" if text.startswith("\r") else ""
    write(start + text[len(start) :].translate(_AS_ESCAPES))
    return len(text)


def _end_without_output() -> None:
    """Makes a standard output that is closed (`| head`) or on a full disk one message, also at the program's end."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        for name in ("write", "flush"):
            setattr(sys.stdout, name, functools.partial(_to_output, getattr(sys.stdout, name)))
        atexit.register(_flush_at_exit)


def _to_output(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except OSError as error:
        # For what is left in the buffer, which Python writes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = f"standard output cannot be written ({error.strerror})"
        raise UserError(what, "keep its pipe open, or free some space") from error


def _flush_at_exit() -> None:
    try:
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def _is_of(error: BaseException, package: str) -> bool:
    """Returns whether a package raised an error itself."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith(f"{package}.")


def _wrapped_user_error(error: BaseException | None) -> UserError | None:
    while error is not None and not isinstance(error, UserError):
        error = error.__context__
    return error


def quiet_libraries() -> None:
    """Silences the libraries to the end of the program (`libraries.quiet_libraries`), as --debug says."""
    libraries.quiet_libraries(debug=_DEBUG.value)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Ends the program with one message and exit code 1 if a UserError is raised or a device runs out of memory.

    Any other error keeps its traceback; --debug shows that of every error. A run that was asked to stop and has saved
    ends with exit code 75; otherwise Ctrl-C ends with code 130.
    """
    with _at_once_during_compilation(), _errors_as_exits():
        yield


@contextlib.contextmanager
def joined(
    coordinator: str, num_processes: int | None, process_id: int | None, *, flags: str = "--config.parallel."
) -> Iterator[None]:
    """Runs the block in one of the joined processes of this program (`hosts.joined`), with `user_errors`.

    Inside, errors become exits once more, since `hosts.joined` expects exit codes.
    """
    with user_errors(), hosts.joined(coordinator, num_processes, process_id, flags=flags), _errors_as_exits():
        yield


@contextlib.contextmanager
def _errors_as_exits() -> Iterator[None]:
    try:
        with interrupts.as_exceptions():
            yield
    except Stopped as stopped:
        print(stopped)
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt as error:
        if _DEBUG.value:
            raise
        _leave_interrupted(error)
    except Exception as error:
        shown = libraries.as_user_error(error) or error
        if isinstance(shown, UserError) and not _DEBUG.value:
            sys.exit(f"error: {shown}")
        if (interrupt := _interrupt_behind(error)) and not _DEBUG.value:
            _leave_interrupted(interrupt)
        raise


@contextlib.contextmanager
def _at_once_during_compilation() -> Iterator[None]:
    """Ends the program at once if it ends with an error or early while a thread compiles: Python would crash."""
    try:
        yield
    except BaseException as end:
        if not compilation.is_compiling():
            raise
        code = end.code if isinstance(end, SystemExit) else 1
        if not isinstance(end, SystemExit):
            traceback.print_exc()
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
        jax.distributed.shutdown()  # waits for the others, which end too: they take one that is gone for lost
        hosts.exit_at_once(code or 0)


def _interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Returns the Ctrl-C that led to the error: a library renamed the exception, or failed while it cleaned up."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _leave_interrupted(interrupt: KeyboardInterrupt) -> NoReturn:
    """Ends the program at once: all is cleaned up, and after an interrupted compilation a normal exit may crash."""
    if isinstance(interrupt, interrupts.Terminated):
        print(interrupts.STOPPED_MESSAGE)
        hosts.exit_at_once(EXIT_CODE)
    print(interrupts.MESSAGE, file=sys.stderr)
    hosts.exit_at_once(interrupts.EXIT_CODE)
