"""What the libraries log and raise, as a user should see it."""

import contextlib
import logging
import re
import sys
import warnings

import jax
from absl import logging as absl_logging

from yolox_jax.errors import UserError, too_many_files


def quiet_libraries(*, debug: bool = False) -> contextlib.ExitStack:
    """Silences the libraries, which log every checkpoint file and the traceback of errors that they also raise.

    Always shown are the warnings of this package, and those of orbax about a failed or skipped part of its work, which
    no error follows. `debug` shows the other warnings of the libraries too.

    Returns:
      A context manager that restores everything at its end. A program may drop it.
    """
    restoring = contextlib.ExitStack()
    own, orbax = logging.getLogger("yolox_jax"), absl_logging.get_absl_logger()
    restoring.callback(own.setLevel, own.level)
    restoring.callback(orbax.setLevel, orbax.level)
    restoring.callback(absl_logging.set_verbosity, absl_logging.get_verbosity())
    absl_logging.set_verbosity(absl_logging.WARNING if debug else absl_logging.FATAL)  # of all libraries
    own.setLevel(logging.WARNING)
    if not debug:
        orbax.setLevel(logging.WARNING)
        orbax.addFilter(_is_of_incomplete_work)
        restoring.callback(orbax.removeFilter, _is_of_incomplete_work)
        # A failed save raises one error; its other writers then end in threads of their own, with needless warnings.
        restoring.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = _ignore_closed_loops
        restoring.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    return restoring


def _is_of_incomplete_work(record: logging.LogRecord) -> bool:
    if record.levelno >= logging.CRITICAL:
        return True
    is_incomplete = re.search(r"\b(skip|fail|unable|could not)", record.getMessage(), re.IGNORECASE)
    return record.levelno == logging.WARNING and "orbax" in record.pathname and is_incomplete is not None


def _ignore_closed_loops(unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def as_user_error(error: Exception) -> UserError | None:
    """Returns a UserError for an error of a library that the user can correct, or None for any other error."""
    return _out_of_memory(error) or too_many_files(error)


def _out_of_memory(error: Exception) -> UserError | None:
    """Returns a UserError if JAX reports that a device is out of memory, or None for any other error."""
    if not isinstance(error, jax.errors.JaxRuntimeError) or "RESOURCE_EXHAUSTED" not in str(error):
        return None
    return UserError(
        f"the memory of a device is full ({str(error).splitlines()[0]})",
        "lower config.batch_size or config.input_size, or use more devices with --config.parallel.shard_state=true",
    )
