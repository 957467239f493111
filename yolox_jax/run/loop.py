"""The loop of a training run: one step after another, with saves and evaluations between them."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np

from yolox_jax.cli import from_config
from yolox_jax.cli.progress import print_progress
from yolox_jax.evaluation import evaluate
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.mesh import place, platform_of, replicate, shard_batch
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.run.callbacks import Callbacks, RunStart
from yolox_jax.run.prepare import Run
from yolox_jax.training import compilation, hosts, trackers
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
    """The resources that are open while the loop runs."""

    log: RunLog
    programs: compilation.Programs
    stop: StopRequest
    callbacks: Callbacks

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


def lacks_evaluation(run: Run, step: int) -> bool:
    """True if the run ended after saving `step` and before the evaluation that was due then."""
    return step > 0 and run.evaluation_due(step - 1) and step not in run.checkpoints.aps()


def loop(
    run: Run, train_state: TrainState, past: History, programs: compilation.Programs, callbacks: Callbacks
) -> EvalResult:
    """Trains to the last step, saving and evaluating when due. Returns the last evaluation."""
    config, schedule, checkpoints, first_step = run.config, run.schedule, run.checkpoints, past.num_steps
    log = open_log(run, past, prints=not callbacks.replace_lines)
    trace = StepTrace(run.directory.path / "profile", first_step, config.profile)
    result, make_room = None, RoomForSteps(platform_of(run.mesh))
    with stop_request() as stop, programs, run.loader, trace, contextlib.closing(log), contextlib.closing(checkpoints):
        session = Session(log, programs, stop, callbacks)
        callbacks.start(_start(run, past))
        run.save_due.note_save()  # config.checkpoint.every_minutes counts from here
        if lacks_evaluation(run, first_step):
            result = _evaluate_step(run, session, train_state, first_step - 1)
        batches = log.time_waits(run.loader)
        for step in range(first_step, schedule.total_steps):
            if has_stalled(checkpoints.aps(), config.patience, step):
                print(f"no better AP in the last {config.patience} evaluations: training ends at step {step}")
                break
            with log.untimed():
                run_step = programs.get(run.size_at(step), give_up=stop.is_urgent)
            if run_step is None:  # stopped while it was compiling
                _save_and_stop(run, session, train_state, step)
            make_room(run_step)
            loaded = next(batches)
            if step in (0, schedule.no_aug_step):
                shown = loaded, run.train_source.class_names, config.hsv.multiplies
                keep_picture(run, log, "batch", step, batch_sheet.draw_sheet, *shown)
            trace.at(step, train_state)
            train_state, metrics = run_step(train_state, shard_batch(loaded.batch, run.mesh))
            log.add(step, metrics, loaded.image_ids)
            log.count_dropped_boxes(loaded.num_dropped_boxes, config.data.max_boxes)
            if (step + 1) % config.log_every_steps == 0:
                record = log.report()
                with log.untimed():
                    callbacks.log(record)
                trim_memory()
            run.directory.check()
            # In every process once a step; a later signal counts at the next one.
            stopping = stop.check() or callbacks.error is not None
            evaluating = run.evaluation_due(step)
            if stopping:
                _save_and_stop(run, session, train_state, step + 1)
            if evaluating or run.save_due(step):
                save(run, session, train_state, step + 1)
            if evaluating:
                result = _evaluate_step(run, session, train_state, step)
        return result or _evaluate(run, session, train_state)  # None: nothing was left to train


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


def save(run: Run, session: Session, train_state: TrainState, num_steps: int) -> None:
    session.log.check_steps()  # a state that has diverged is not saved
    config, class_names = run.config, run.train_source.class_names
    data_state = {**run.loader.get_state(), "next_step": num_steps}
    meta = checkpoint.Meta(
        *(config.model, class_names, num_steps, config.to_dict(), data_state, run.mesh.size, jax.process_count()),
        log=session.log.mark,
    )
    run.checkpoints.save(train_state, meta)
    run.directory.copy(saving=num_steps)
    run.save_due.note_save()


def _save_and_stop(run: Run, session: Session, train_state: TrainState, num_steps: int) -> NoReturn:
    save(run, session, train_state, num_steps)
    where = f"saved at step {num_steps} of {run.directory.address}"
    if session.callbacks.error is not None:
        print(f"error of a callback: {where}")
    session.callbacks.raise_error()
    raise Stopped(f"{session.stop.signal_name}: {where}; the same command resumes from there")


def _evaluate_step(run: Run, session: Session, train_state: TrainState, step: int) -> EvalResult:
    """Evaluates the state after `step`, which is saved already, and records the result."""
    with session.log.untimed():
        result = _evaluate(run, session, train_state)
    record_evaluation(run, session.log, step, result)
    with session.log.untimed():
        session.callbacks.evaluation(step, result)
    return result


def record_evaluation(run: Run, log: RunLog, step: int, result: EvalResult) -> None:
    """Writes the result of the state after `step` to the log, with a picture, and beside the checkpoint."""
    keep_picture(run, log, "predictions", step, sheets.predictions_sheet, run.val_source, result.detections)
    log.write({"step": step, "event": "evaluation", **result.ap.stats})
    run.checkpoints.record_ap(step + 1, result.ap.stats["AP"])
    run.directory.copy()


def _evaluate(run: Run, session: Session, train_state: TrainState) -> EvalResult:
    """Evaluates the EMA weights on the validation split. Raises Stopped if a signal arrives meanwhile."""
    config, predict = run.config, session.evaluation_program()
    variables = fold_batch_norm(run.model, replicate(train_state.ema, run.mesh), platform_of(run.mesh))
    result = evaluate.evaluate(
        predict,
        place(variables, run.mesh),
        run.val_source,
        size_hw=run.size_hw,
        batch_size=config.eval.batch_size,
        mesh=run.mesh,
        metric=config.eval.metric,
        threads=from_config.num_threads(config),
        progress=session.show_evaluated,
    )
    stats = result.ap.stats
    print(f"AP {stats['AP']:.4f}  AP50 {stats['AP50']:.4f} on {result.num_images} images", flush=True)
    return result


def keep_picture(
    run: Run, log: RunLog, name: str, step: int, draw_sheet: Callable[..., np.ndarray], *shown: Any
) -> None:
    """Writes `draw_sheet(*shown)` to pictures/<name>_<step>.jpg, and a record of it to the log."""
    if hosts.is_primary():
        with log.untimed():
            picture = sheets.keep_picture(run.directory.path, f"{name}_{step}", draw_sheet(*shown))
        log.write({"step": step, "event": name, **picture})
