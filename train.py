"""Trains a detector: python train.py --config=configs/yolox_s.py [--workdir=DIR] [--config.field=value …]

train() is the table of contents; its five parts follow in the same order.
"""

from yolox_jax.cli import at_start  # noqa: F401  # isort: skip  (before the libraries)
import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from yolox_jax import storage
from yolox_jax.augment.multiscale import MultiscaleConfig
from yolox_jax.cli import from_config, run_summary, same_weights
from yolox_jax.cli.terminal import joined, print_progress, quiet_libraries, run_program
from yolox_jax.data.prefetch import Shard
from yolox_jax.data.sources import usable
from yolox_jax.data.sources.open import check_classes
from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.detection.anchors import check_size
from yolox_jax.evaluation import evaluate
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.inference import predict as prediction
from yolox_jax.inference.predict import DetectConfig, make_predict
from yolox_jax.mesh import check_batch_size, make_mesh, place, platform_of, replicate, shard_batch
from yolox_jax.models import freezing, yolox
from yolox_jax.models.folding import fold_batch_norm, folded_shapes
from yolox_jax.training import compilation, history, hosts, parallel, resume, state, trackers
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.history import History
from yolox_jax.training.host_memory import RoomForSteps, keep_freed_memory, trim_memory
from yolox_jax.training.interruption import Stopped, StopRequest, sigterm_ends, sigterm_noted, stop_request
from yolox_jax.training.open_directory import RunDirectory, opened
from yolox_jax.training.profiling import StepTrace
from yolox_jax.training.run_log import RunLog
from yolox_jax.training.save_due import SaveDue, has_stalled
from yolox_jax.training.schedule import EvaluationDue, Schedule
from yolox_jax.training.state import TrainState
from yolox_jax.training.step import StepConfig, train_step
from yolox_jax.types import Source
from yolox_jax.visualize import batch_sheet, sheets
from yolox_jax.weights import checkpoint, download
from yolox_jax.weights.load import load_weights

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config, such as configs/yolox_s.py.", lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run directory, a folder or an address like gs://bucket/run; runs/<config name> by default."
)


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that stays the same from the first step to the last."""

    config: ConfigDict
    directory: RunDirectory
    mesh: Mesh
    size_hw: tuple[int, int]  # the input size; multi-scale changes it from step to step
    train_source: Source
    val_source: Source
    schedule: Schedule
    evaluation_due: EvaluationDue
    multiscale: MultiscaleConfig | None
    loader: TrainLoader
    model: yolox.YOLOX
    optimizer: Any  # an optax.GradientTransformation
    step_config: StepConfig
    detect_config: DetectConfig
    checkpoints: Checkpoints
    save_due: SaveDue


@dataclasses.dataclass(frozen=True)
class Session:
    """The resources that are open while the loop runs."""

    log: RunLog
    programs: compilation.Programs
    stop: StopRequest


def train(config: ConfigDict, directory: RunDirectory) -> EvalResult:
    """Trains as `config` says, resuming the run in `directory` if it holds one. Returns the last evaluation."""
    run = prepare(config, directory)
    train_state, past = restore(run)
    programs = compile_ahead(run, train_state, past.num_steps)
    result = loop(run, train_state, past, programs)
    with sigterm_noted("the run is finished, and ends once its results are written"):
        finish(run, result)
    return result


def prepare(config: ConfigDict, directory: RunDirectory) -> Run:
    """Checks the config, opens the data, and builds everything that does not depend on a checkpoint."""
    download.local_file(config.init_from)  # a bucket that refuses is known before the data set is copied from one
    mesh = make_mesh()
    check_batch_size("batch_size", config.batch_size, mesh, config.accumulate_steps)
    check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    size_hw = check_size(config.input_size)
    evaluate.check_metric(config.eval.metric)

    train_source, val_source = (from_config.open_source(config, split) for split in ("train", "val"))
    class_names = train_source.class_names
    check_classes(config.num_classes, class_names, val_source.class_names)

    schedule = from_config.schedule(config, len(train_source))
    shard, saves = Shard(jax.process_index(), jax.process_count()), config.checkpoint
    return Run(
        config,
        directory,
        mesh,
        size_hw,
        train_source,
        val_source,
        schedule,
        evaluation_due=EvaluationDue(schedule, config.eval.every_epochs),
        multiscale=from_config.multiscale(config, size_hw, schedule),
        loader=from_config.train_loader(config, train_source, schedule, shard),
        model=from_config.training_model(config, len(class_names), mesh, schedule.total_steps),
        optimizer=from_config.optimizer(config),
        step_config=from_config.step_config(config, schedule),
        detect_config=from_config.whole_image_detect_config(config),
        checkpoints=Checkpoints(directory.path, saves.keep_last, directory.address, directory.slices),
        save_due=SaveDue(saves.every_steps, saves.every_minutes, ask_every=config.log_every_steps),
    )


def restore(run: Run) -> tuple[TrainState, History]:
    """Returns the newest checkpoint's state, or a new one, and the log of its steps; the loader starts after them."""
    config, directory = run.config, run.directory
    class_names = run.train_source.class_names
    if config.init_from and checkpoint.find(directory.path) is None:
        start = {"transfer": True, "seed": config.seed, "item": config.init_item}
        variables = load_weights(same_weights.agreed(config.init_from), config.model, class_names, **start)
    else:
        variables = state.init_variables(run.model, config.seed)
    freezing.frozen_mask(variables, run.step_config.freeze)  # reports a wrong pattern now, not while compiling
    train_state = state.create(variables, run.optimizer, yolox.compute_dtype(config.dtype))
    train_state = place(train_state, run.mesh, parallel.state_specs(train_state, run.mesh, config.parallel.shard_state))

    def check(meta: checkpoint.Meta) -> None:
        resume.check(meta, config.to_dict(), class_names, run.loader, run.schedule.total_steps, directory.address)

    restored = run.checkpoints.restore_latest(train_state, check)
    train_state, meta = (train_state, None) if restored is None else restored
    if meta is not None:
        run.loader.set_state(meta.data_state)
        print(f"resuming from step {meta.step} of {directory.address}")
    return train_state, history.resumed(directory.path, directory.address, meta, run.checkpoints)


def compile_ahead(run: Run, train_state: TrainState, first_step: int) -> compilation.Programs:
    """Prepares one program per image size and one for evaluation, to be compiled in order of first use by `loop`."""
    config, mesh, total_steps = run.config, run.mesh, run.schedule.total_steps
    sizes = [run.size_hw] if first_step < total_steps else []
    if run.multiscale:
        sizes = run.multiscale.first_uses(first_step, total_steps, run.size_hw, config.seed)
    sources = run.train_source, run.val_source
    shown = config, run.directory.address, mesh, train_state, sources, run.schedule, len(sizes), run.model.cpu_kernels
    run_summary.print_start(*shown)
    specs = parallel.state_specs(train_state, mesh, config.parallel.shard_state)
    # Shapes only: the loop donates the arrays of the state while programs still compile.
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), train_state)

    step = functools.partial(train_step, model=run.model, optimizer=run.optimizer, config=run.step_config)

    def compile_step(size_hw: tuple[int, int]) -> parallel.StepFunction:
        mapped = parallel.map_step(functools.partial(step, size_hw=size_hw), mesh, config.parallel.kind, specs)
        return parallel.compile_step(mapped, like, run.loader.empty_batch(), mesh, run.model.cpu_kernels)

    predict = make_predict(run.model, mesh, run.detect_config, repeatable=True)
    folded = folded_shapes(run.model, like.ema, platform_of(mesh))
    args = predict, folded, run.size_hw, config.eval.batch_size, run.model.cpu_kernels
    evaluation: compilation.ByKey = {"predict": functools.partial(prediction.compile_predict, *args)}
    steps: compilation.ByKey = {size: functools.partial(compile_step, size) for size in sizes}
    evaluates_first = _lacks_evaluation(run, first_step)
    return compilation.Programs({**evaluation, **steps} if evaluates_first else {**steps, **evaluation})


def _lacks_evaluation(run: Run, step: int) -> bool:
    """True if the run ended after saving `step` and before the evaluation that was due then."""
    return step > 0 and run.evaluation_due(step - 1) and step not in run.checkpoints.aps()


def loop(run: Run, train_state: TrainState, past: History, programs: compilation.Programs) -> EvalResult:
    """Trains to the last step, saving and evaluating when due. Returns the last evaluation."""
    config, schedule, checkpoints, first_step = run.config, run.schedule, run.checkpoints, past.num_steps
    log = _open_log(run, past)
    trace = StepTrace(run.directory.path / "profile", first_step, config.profile)
    result, make_room = None, RoomForSteps(platform_of(run.mesh))
    with stop_request() as stop, programs, run.loader, trace, contextlib.closing(log), contextlib.closing(checkpoints):
        session = Session(log, programs, stop)
        run.save_due.note_save()  # config.checkpoint.every_minutes counts from here
        if _lacks_evaluation(run, first_step):
            result = _evaluate_step(run, session, train_state, first_step - 1)
        batches = log.time_waits(run.loader)
        for step in range(first_step, schedule.total_steps):
            if has_stalled(checkpoints.aps(), config.patience, step):
                print(f"no better AP in the last {config.patience} evaluations: training ends at step {step}")
                break
            size_hw = run.multiscale.size_at(step, run.size_hw, config.seed) if run.multiscale else run.size_hw
            with log.untimed():
                run_step = programs.get(size_hw, give_up=stop.is_urgent)
            if run_step is None:  # stopped while it was compiling
                _save_and_stop(run, session, train_state, step)
            make_room(run_step)
            loaded = next(batches)
            if step in (0, schedule.no_aug_step):
                shown = loaded, run.train_source.class_names, config.hsv.multiplies
                _keep_picture(run, log, "batch", step, batch_sheet.draw_sheet, *shown)
            trace.at(step, train_state)
            train_state, metrics = run_step(train_state, shard_batch(loaded.batch, run.mesh))
            log.add(step, metrics, loaded.image_ids)
            log.count_dropped_boxes(loaded.num_dropped_boxes, config.data.max_boxes)
            if (step + 1) % config.log_every_steps == 0:
                log.report()
                trim_memory()
            run.directory.check()
            stopping = stop.check()  # in every process once a step; a later signal counts at the next one
            evaluating = run.evaluation_due(step)
            if stopping:
                _save_and_stop(run, session, train_state, step + 1)
            if evaluating or run.save_due(step):
                _save(run, session, train_state, step + 1)
            if evaluating:
                result = _evaluate_step(run, session, train_state, step)
        return result or _evaluate(run, session, train_state)  # None: nothing was left to train


def _open_log(run: Run, past: History) -> RunLog:
    config, is_primary = run.config, hosts.is_primary()
    return RunLog(
        run.directory.path,
        history=past,
        total_steps=run.schedule.total_steps,
        steps_per_epoch=run.schedule.steps_per_epoch,
        batch_size=config.batch_size,
        max_bad_steps=config.max_bad_steps,
        writes=is_primary,
        tracker=trackers.open_tracker(config.tracker if is_primary else "", run.directory.path, config.to_dict()),
    )


def _save(run: Run, session: Session, train_state: TrainState, num_steps: int) -> None:
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
    _save(run, session, train_state, num_steps)
    where = f"saved at step {num_steps} of {run.directory.address}"
    raise Stopped(f"{session.stop.signal_name}: {where}; the same command resumes from there")


def _evaluate_step(run: Run, session: Session, train_state: TrainState, step: int) -> EvalResult:
    """Evaluates the state after `step`, which is saved already, and records the result."""
    log = session.log
    with log.untimed():
        result = _evaluate(run, session, train_state)
    _keep_picture(run, log, "predictions", step, sheets.predictions_sheet, run.val_source, result.detections)
    log.write({"step": step, "event": "evaluation", **result.ap.stats})
    run.checkpoints.record_ap(step + 1, result.ap.stats["AP"])
    run.directory.copy()
    return result


def _evaluate(run: Run, session: Session, train_state: TrainState) -> EvalResult:
    """Evaluates the EMA weights on the validation split. Raises Stopped if a signal arrives meanwhile."""
    config, stop = run.config, session.stop
    during = "stopped during an evaluation, after saving; the same command resumes with that evaluation"

    def progress(num_done: int, num_all: int) -> None:
        print_progress(num_done, num_all)
        if stop.check():
            raise Stopped(f"{stop.signal_name}: {during}")

    predict = session.programs.get("predict", give_up=stop.is_urgent)
    if predict is None:
        raise Stopped(f"{stop.signal_name}: {during}")
    variables = fold_batch_norm(run.model, replicate(train_state.ema, run.mesh), platform_of(run.mesh))
    result = evaluate.evaluate(
        predict,
        place(variables, run.mesh),
        run.val_source,
        size_hw=run.size_hw,
        batch_size=config.eval.batch_size,
        mesh=run.mesh,
        metric=config.eval.metric,
        threads=config.data.threads,
        progress=progress,
    )
    stats = result.ap.stats
    print(f"AP {stats['AP']:.4f}  AP50 {stats['AP50']:.4f} on {result.num_images} images", flush=True)
    return result


def _keep_picture(
    run: Run, log: RunLog, name: str, step: int, draw_sheet: Callable[..., np.ndarray], *shown: Any
) -> None:
    """Writes `draw_sheet(*shown)` to pictures/<name>_<step>.jpg, and a record of it to the log."""
    if hosts.is_primary():
        with log.untimed():
            picture = sheets.keep_picture(run.directory.path, f"{name}_{step}", draw_sheet(*shown))
        log.write({"step": step, "event": name, **picture})


def finish(run: Run, result: EvalResult) -> None:
    """Writes results.json and predictions.jpg, and repeats the warning that the data is mostly unusable."""
    if hosts.is_primary():
        result.write(run.directory.path / "results.json")
        usable.warn_again(run.train_source)
        sheet = sheets.predictions_sheet(run.val_source, result.detections)
        sheets.write_picture(run.directory.path / "predictions.jpg", sheet)


def main() -> None:
    flag = flags.FLAGS["config"]
    config_file = config_flags.get_config_filename(flag)
    keep_freed_memory()
    quiet_libraries()
    compilation.enable_compilation_cache()
    config, where = _CONFIG.value, _CONFIG.value.parallel
    with (
        joined(where.coordinator, where.num_processes, where.process_id),
        sigterm_ends(),
        opened(storage.resolve(_WORKDIR.value or Path("runs") / Path(config_file).stem), config.resume) as directory,
    ):
        result = train(config, directory)
    run_summary.print_end(result, directory.address, config_file, config_flags.get_override_values(flag))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_program(main)
