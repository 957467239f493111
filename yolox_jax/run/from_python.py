"""yolox_jax.train and yolox_jax.evaluate: what train.py and eval.py do, in a process of the user's own."""

import atexit
import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from yolox_jax import storage
from yolox_jax.cli import run_summary
from yolox_jax.cli.as_trained import as_trained
from yolox_jax.cli.from_config import batch_pixels
from yolox_jax.cli.libraries import as_user_error, quiet_libraries
from yolox_jax.cli.load_config import load_config
from yolox_jax.cli.outputs import output_folder
from yolox_jax.cli.progress import in_notebook
from yolox_jax.errors import UserError
from yolox_jax.evaluation import plots as plotting
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.interrupts import SavedInterrupt
from yolox_jax.run import train as whole_run
from yolox_jax.run.callbacks import Callback, Callbacks
from yolox_jax.run.evaluate import evaluate_weights, plot
from yolox_jax.run.notebook import LiveCurves
from yolox_jax.training import compilation
from yolox_jax.training.host_memory import keep_freed_memory
from yolox_jax.training.interruption import Stopped
from yolox_jax.training.open_directory import opened
from yolox_jax.weights.load import find_weights


def train(
    config: ConfigDict | str | Path,
    workdir: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> EvalResult:
    """Trains a detector as train.py does, resuming the run in `workdir` if it holds one.

    In a notebook, a bar and curves show the progress. Ctrl-C, the stop button there, and SIGTERM let the run save and
    end by a KeyboardInterrupt; a second Ctrl-C ends it at once. Outside the main thread, where no signal arrives, only
    a callback can end it.

    Args:
      config: a ConfigDict, which is not changed, the path of a config's file, or the name of a config of the project:
        "finetune" is configs/finetune.py, in an installed package too.
      workdir: the run directory, a folder or an address like gs://bucket/run.
      overrides: fields to set: {"data.root": "datasets/mine"} is --config.data.root=datasets/mine.
      callbacks: objects with any methods of `yolox_jax.run.callbacks.Callback`. An error in one lets the run save and
        end by that error.
    Returns:
      The last evaluation.
    Raises:
      UserError: a mistake that the user can correct.
      KeyboardInterrupt: the run was asked to stop, and has saved; the same call resumes it.
    """
    with _as_a_program():
        loaded = load_config(config, overrides)
        keep_freed_memory(batch_pixels(loaded))
        _check_single(loaded)
        if loaded.num_runs != 1:
            what = f"config.num_runs is {loaded.num_runs}, and yolox_jax.train makes one run"
            raise UserError(what, "leave it out, or use train.py")
        live = LiveCurves()
        shown = [live] if in_notebook() else []
        called = Callbacks([*shown, *callbacks], replace_lines=bool(shown))
        with contextlib.closing(live), opened(storage.resolve(workdir), loaded.resume) as directory:
            result = whole_run.train(loaded, directory, called)
        run_summary.print_result(result, directory.address)
    return result


def evaluate(
    weights: str | Path,
    config: ConfigDict | str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    plots: str | Path | None = None,
    against: str | Path | None = None,
) -> EvalResult:
    """Computes AP on a data set and prints it; writes the plots and the report of `eval.py --plots` if asked.

    Args:
      weights: a run directory, a checkpoint, an official .pth file, or a name like yolox_s. A run is evaluated with its
        own network, input size and choice of classes, unless `overrides` has them.
      config: of the data set, as in `train`.
      overrides: as in `train`.
      plots: a folder for curves, the confusion matrix, tables, the worst images, and report.html with all of it; it
        needs matplotlib.
      against: other weights, which are evaluated too, and with which report.html compares the first.
    Returns:
      The evaluation of `weights`.
    Raises:
      UserError: a mistake that the user can correct.
    """
    with _as_a_program(), output_folder(None if plots is None else os.fspath(plots)) as folder:
        if against is not None and folder is None:
            raise UserError("against compares in the report of plots", "add plots=DIR, or leave it out")
        loaded = load_config(config, overrides)
        keep_freed_memory()
        _check_single(loaded)
        if folder is not None:
            plotting.prepare(folder)
        runs = []
        for found in [find_weights(os.fspath(each)) for each in (weights, against) if each is not None]:
            result, source = evaluate_weights(as_trained(loaded, found, overrides or ()), found)
            run_summary.print_ap(result)
            runs.append((found, result, source))
        if folder is not None:
            plot(folder, runs, str(plots))
    return runs[0][1]


@contextlib.contextmanager
def _as_a_program() -> Iterator[None]:
    """Sets this process up as the programs do, and raises what they show as one message.

    The settings of the libraries' logs are restored at the end; the compilation cache stays on. A notebook keeps the
    last error: frames of its traceback are cleared, so that the arrays of the run are not kept too; all of them if it
    is shown as a message, otherwise those of this package.
    """
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # jax adds it at run time
        compilation.enable_compilation_cache()
    atexit.register(compilation.wait)
    earlier = sys.exception()  # that the caller is handling; its frames are the caller's
    with quiet_libraries():
        try:
            yield
        except Stopped as stopped:
            _clear_frames(stopped, earlier)
            raise SavedInterrupt(str(stopped)) from None
        except BaseException as error:
            shown = as_user_error(error) if isinstance(error, Exception) else None
            is_message = shown is not None or isinstance(error, UserError)
            _clear_frames(error, earlier, "" if is_message else "yolox_jax.")
            if shown is not None:
                raise shown from error
            raise


def _clear_frames(error: BaseException, earlier: BaseException | None, module: str = "") -> None:
    """Clears the variables of modules whose name begins so, in the tracebacks of an error and those that led to it.

    Leaves out an `earlier` error, and what led to that.
    """
    left, seen = [error], [earlier]
    while left:
        each = left.pop()
        seen.append(each)
        left += [cause for cause in (each.__cause__, each.__context__) if cause is not None and cause not in seen]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if str(frame.f_globals.get("__name__")).startswith(module):
                with contextlib.suppress(RuntimeError):  # that of the caller still runs
                    frame.clear()


def _check_single(config: ConfigDict) -> None:
    """Raises UserError if the run is one of several processes, which start and end together: as train.py's."""
    if config.parallel.coordinator not in ("", "none") or jax.process_count() > 1:
        raise UserError("a run of several processes is not started from Python", "start train.py in each of them")
