"""The loop of a training run: one step after another, with saves and evaluations between them."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh

from yolox_jax.cli import from_config
from yolox_jax.cli.progress import print_progress
from yolox_jax.data.train_loader import LoadedBatch
from yolox_jax.evaluation import evaluate
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.mesh import platform_of, replicate
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.run.callbacks import Callbacks, RunStart
from yolox_jax.run.prepare import Run
from yolox_jax.training import compilation, groups, hosts, trackers
from yolox_jax.training.history import History
from yolox_jax.training.host_memory import RoomForSteps, trim_memory
from yolox_jax.training.interruption import Stopped, StopRequest, stop_request
from yolox_jax.training.profiling import StepTrace
from yolox_jax.training.run_log import RunLog
from yolox_jax.training.save_due import has_stalled
from yolox_jax.training.state import TrainState
from yolox_jax.visualize import batch_sheet, sheets
from yolox_jax.weights import checkpoint


@dataclasses.dataclass(frozen=True)
class Session:
    """What the loop trains, and the resources that are open meanwhile."""

    runs: Sequence[Run]
    mesh: Mesh  # of all runs
    logs: Sequence[RunLog]  # one of each run
    programs: compilation.Programs
    stop: StopRequest
    callbacks: Callbacks

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        """Leaves the time of the block out of what the logs report."""
        with contextlib.ExitStack() as opening:
            for log in self.logs:
                opening.enter_context(log.untimed())
            yield

    def evaluation_program(self) -> Any:
        """Waits for the compiled program of evaluation. Raises Stopped if a signal arrives meanwhile."""
        predict = self.programs.get("predict", give_up=self.stop.is_urgent)
        if predict is None:
            self._stop_evaluating()
        return predict

    def show_evaluated(self, num_done: int, num_all: int) -> None:
        """Prints how many images are evaluated. Raises Stopped if a signal arrived."""
        print_progress(num_done, num_all)
        if self.stop.check():
            self._stop_evaluating()

    def _stop_evaluating(self) -> NoReturn:
        during = "stopped during an evaluation, after saving; the same command resumes with that evaluation"
        raise Stopped(f"{self.stop.signal_name}: {during}")


def loop(
    runs: Sequence[Run],
    mesh: Mesh,
    train_state: TrainState,
    past: Sequence[History],
    programs: compilation.Programs,
    callbacks: Callbacks,
) -> list[EvalResult]:
    """Trains to the last step, saving and evaluating when due. Returns the last evaluation of each run.

    Args:
      runs: one, or several that one program trains (seeds.py), whose schedule and image sizes are the same.
      mesh: of all runs.
      train_state: of all runs, on that mesh, as training/groups.py joins them.
      past: the log of each run's steps before the first one.
      programs: that of each image size, and that of evaluation.
      callbacks: of a single run; for several there are none.
    """
    run, first_step = runs[0], past[0].num_steps
    config, schedule = run.config, run.schedule
    results, make_room = None, RoomForSteps(platform_of(mesh))
    trace = StepTrace(run.directory.path / "profile", first_step, config.profile)
    with _opened(runs, mesh, past, programs, callbacks) as session, trace:
        logs, stop = session.logs, session.stop
        callbacks.start(_start(run, past[0]))
        run.save_due.note_save()  # config.checkpoint.every_minutes counts from here
        if any(each.lacks_evaluation(first_step) for each in runs):
            results = _evaluate_step(session, train_state, first_step - 1)
        readers = [log.time_waits(each.loader) for each, log in zip(runs, logs, strict=True)]
        for step in range(first_step, schedule.total_steps):
            if has_stalled(run.checkpoints.aps(), config.patience, step):
                print(f"no better AP in the last {config.patience} evaluations: training ends at step {step}")
                break
            with session.untimed():
                run_step = programs.get(run.size_at(step), give_up=stop.is_urgent)
            if run_step is None:  # stopped while it was compiling
                _save_and_stop(session, train_state, step)
            loaded = [next(reader) for reader in readers]
            if step in (0, schedule.no_aug_step):
                _keep_batches(session, step, loaded)
            trace.at(step, train_state)
            batch = groups.join_batches([each.batch for each in loaded], mesh)
            make_room(run_step, (train_state, batch))
            train_state, metrics = run_step(train_state, batch)
            for each, log, own in zip(runs, logs, loaded, strict=True):
                log.add(step, groups.take(metrics, mesh, each.mesh), own.image_ids)
                log.count_dropped_boxes(own.num_dropped_boxes, config.data.max_boxes)
            if (step + 1) % config.log_every_steps == 0:
                for log in logs:
                    record = log.report()
                    with session.untimed():
                        callbacks.log(record)  # called here: its error keeps this frame, which from_python clears
                trim_memory()
            for each in runs:
                each.directory.check()
            # In every process once a step; a later signal counts at the next one.
            stopping = stop.check() or callbacks.error is not None
            evaluating = run.evaluation_due(step)
            if stopping:
                _save_and_stop(session, train_state, step + 1)
            if evaluating or run.save_due(step):
                _save(session, train_state, step + 1)
            if evaluating:
                results = _evaluate_step(session, train_state, step)
        return results or _evaluate(session, train_state)  # None: nothing was left to train


@contextlib.contextmanager
def _opened(
    runs: Sequence[Run],
    mesh: Mesh,
    past: Sequence[History],
    programs: compilation.Programs,
    callbacks: Callbacks,
) -> Iterator[Session]:
    """Opens the logs, notes signals and starts to compile; at the end closes all that the loop uses."""
    logs = [  # first, since a tracker may ask for something, or refuse
        open_log(run, own_past, prints=not callbacks.replace_lines, label=_label(run, runs))
        for run, own_past in zip(runs, past, strict=True)
    ]
    with contextlib.ExitStack() as opening:
        stop = opening.enter_context(stop_request())
        opening.enter_context(programs)
        for run, log in zip(runs, logs, strict=True):
            opening.enter_context(run.loader)
            opening.enter_context(contextlib.closing(log))
            opening.enter_context(contextlib.closing(run.checkpoints))
        yield Session(runs, mesh, logs, programs, stop, callbacks)


def _label(run: Run, runs: Sequence[Run]) -> str:
    """Returns the beginning of this run's lines on the terminal, empty for a single run."""
    return f"seed {run.config.seed}: " if len(runs) > 1 else ""


def _start(run: Run, past: History) -> RunStart:
    schedule = run.schedule
    address, records = str(run.directory.address), tuple(past.records)
    return RunStart(address, past.num_steps, schedule.total_steps, schedule.steps_per_epoch, records)


def open_log(run: Run, past: History, *, prints: bool = True, label: str = "") -> RunLog:
    config, is_primary = run.config, hosts.is_primary()
    return RunLog(
        run.directory.path,
        history=past,
        total_steps=run.schedule.total_steps,
        steps_per_epoch=run.schedule.steps_per_epoch,
        batch_size=config.batch_size,
        max_bad_steps=config.max_bad_steps,
        writes=is_primary,
        prints=prints,
        label=label,
        tracker=trackers.open_tracker(config.tracker if is_primary else "", run.directory.path, config.to_dict()),
    )


def _keep_batches(session: Session, step: int, loaded: Sequence[LoadedBatch]) -> None:
    for run, log, own in zip(session.runs, session.logs, loaded, strict=True):
        shown = own, run.train_source.class_names, run.config.hsv.multiplies
        _keep_picture(run, log, "batch", step, batch_sheet.draw_sheet, *shown)


def _save(session: Session, train_state: TrainState, num_steps: int) -> None:
    if len(session.runs) > 1:  # so that no run is two saves ahead of another, in its bucket neither
        for run in session.runs:
            run.checkpoints.wait()
            run.directory.wait_for_save()
    for run, log in zip(session.runs, session.logs, strict=True):
        save(run, log, groups.take(train_state, session.mesh, run.mesh), num_steps)


def save(run: Run, log: RunLog, train_state: TrainState, num_steps: int) -> None:
    log.check_steps()  # a state that has diverged is not saved
    config, class_names = run.config, run.train_source.class_names
    data_state = {**run.loader.get_state(), "next_step": num_steps}
    meta = checkpoint.Meta(
        *(config.model, class_names, num_steps, config.to_dict(), data_state, run.mesh.size, jax.process_count()),
        log=log.mark,
    )
    run.checkpoints.save(train_state, meta)
    run.directory.copy(saving=num_steps)
    run.save_due.note_save()


def _save_and_stop(session: Session, train_state: TrainState, num_steps: int) -> NoReturn:
    _save(session, train_state, num_steps)
    where = f"saved at step {num_steps} of {', '.join(str(run.directory.address) for run in session.runs)}"
    if session.callbacks.error is not None:
        print(f"error of a callback: {where}")
    session.callbacks.raise_error()
    raise Stopped(f"{session.stop.signal_name}: {where}; the same command resumes from there")


def _evaluate_step(session: Session, train_state: TrainState, step: int) -> list[EvalResult]:
    """Evaluates the state after `step`, which is saved already, and records each result that is not recorded yet."""
    with session.untimed():
        results = _evaluate(session, train_state)
    for run, log, result in zip(session.runs, session.logs, results, strict=True):
        if run.lacks_evaluation(step + 1):
            _record_evaluation(run, log, step, result)
        with session.untimed():
            session.callbacks.evaluation(step, result)
    return results


def _record_evaluation(run: Run, log: RunLog, step: int, result: EvalResult) -> None:
    """Writes the result of the state after `step` to the log, with a picture, and beside the checkpoint."""
    _keep_picture(run, log, "predictions", step, sheets.predictions_sheet, run.val_source, result.detections)
    log.write({"step": step, "event": "evaluation", **result.ap.stats})
    run.checkpoints.record_ap(step + 1, result.ap.stats["AP"])
    run.directory.copy()


def _evaluate(session: Session, train_state: TrainState) -> list[EvalResult]:
    """Evaluates the EMA weights on the validation split. Raises Stopped if a signal arrives meanwhile."""
    runs, mesh, predict = session.runs, session.mesh, session.evaluation_program()
    first, folded = runs[0], []
    for run in runs:
        ema = replicate(groups.take(train_state.ema, mesh, run.mesh), run.mesh)
        folded.append(fold_batch_norm(run.model, ema, platform_of(run.mesh)))
    results = evaluate.evaluate_runs(
        predict,
        groups.join(folded, mesh),
        first.val_source,
        len(runs),
        size_hw=first.size_hw,
        batch_size=first.config.eval.batch_size,
        mesh=mesh,
        metric=first.config.eval.metric,
        threads=from_config.num_threads(first.config),
        progress=session.show_evaluated,
    )
    for run, result in zip(runs, results, strict=True):
        stats, label = result.ap.stats, _label(run, runs)
        print(f"{label}AP {stats['AP']:.4f}  AP50 {stats['AP50']:.4f} on {result.num_images} images", flush=True)
    return results


def _keep_picture(
    run: Run, log: RunLog, name: str, step: int, draw_sheet: Callable[..., np.ndarray], *shown: Any
) -> None:
    """Writes `draw_sheet(*shown)` to pictures/<name>_<step>.jpg, and a record of it to the log."""
    if hosts.is_primary():
        with log.untimed():
            picture = sheets.keep_picture(run.directory.path, f"{name}_{step}", draw_sheet(*shown))
        log.write({"step": step, "event": name, **picture})
