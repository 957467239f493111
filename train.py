"""Trains a detector: python train.py --config=configs/yolox_s.py [--workdir=DIR] [--config.field=value …]

Read it from top to bottom: setup, data, model and optimiser, restore, loop, finish.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from yolox_jax.cli import from_config, run_summary
from yolox_jax.cli.terminal import print_progress, quiet_libraries, run_program, user_errors
from yolox_jax.data.prefetch import Shard
from yolox_jax.data.sources.open import check_classes
from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.detection.anchors import check_size
from yolox_jax.evaluation import evaluate
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.inference import predict as prediction
from yolox_jax.inference.predict import DetectConfig, Predict, make_predict
from yolox_jax.mesh import AXIS, check_batch_size, make_mesh, place, replicate, shard_batch
from yolox_jax.models import freezing, yolox
from yolox_jax.training import compilation, hosts, optim, parallel, resume, state
from yolox_jax.training.checkpoints import Checkpoints, SaveDue, has_stalled
from yolox_jax.training.host_memory import keep_freed_memory, trim_memory
from yolox_jax.training.interruption import Stopped, StopRequest, stop_request
from yolox_jax.training.profiling import StepTrace
from yolox_jax.training.run_directory import claim, set_aside
from yolox_jax.training.run_log import RunLog
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.step import train_step
from yolox_jax.training.trackers import open_tracker
from yolox_jax.types import Source
from yolox_jax.visualize import batch_sheet, sheets
from yolox_jax.weights import checkpoint
from yolox_jax.weights.load import load_weights

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: a file of configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written; runs/<config name> by default.")


def train(config: ConfigDict, workdir: Path) -> EvalResult:
    """Runs the training that `config` describes, or goes on with the one in `workdir`; the last evaluation."""
    # ---------------------------------------------- setup ----------------------------------------------
    from_config.check_numbers(config)
    mesh = make_mesh()
    check_batch_size("batch_size", config.batch_size, mesh, config.accumulate_steps)
    check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    size_hw = check_size(config.input_size)
    evaluate.check_metric(config.eval.metric)

    # ---------------------------------------------- data -----------------------------------------------
    train_source, val_source = (from_config.open_source(config, split) for split in ("train", "val"))
    class_names = train_source.class_names
    check_classes(config.num_classes, class_names, val_source.class_names)
    multiscale = from_config.multiscale(config, size_hw, len(train_source))

    # --------------------------------------- model and optimiser ---------------------------------------
    dtype = yolox.compute_dtype(config.dtype)
    bn_axis = AXIS if config.parallel.sync_bn else None
    model = yolox.create(config.model, len(class_names), dtype, bn_axis=bn_axis)
    optimizer = optim.create(config.optimizer, momentum=config.momentum, weight_decay=config.weight_decay)
    step_config = from_config.step_config(config, len(train_source))
    schedule = step_config.schedule

    # --------------------------------------------- restore ---------------------------------------------
    loader = TrainLoader(
        train_source,
        from_config.loader_config(config, size_hw, len(train_source)),
        schedule.total_steps,
        shard=Shard(jax.process_index(), jax.process_count()),
        read=from_config.read_config(config),
    )
    if config.init_from and checkpoint.find(workdir) is None:
        variables = load_weights(
            config.init_from, config.model, class_names, transfer=True, seed=config.seed, item=config.init_item
        )
    else:
        variables = state.init_variables(model, config.seed)
    freezing.frozen_mask(variables, step_config.freeze)  # a pattern that is wrong is told now
    train_state = state.create(variables, optimizer)
    specs = parallel.state_specs(train_state, mesh, config.parallel.shard_state)
    train_state = place(train_state, mesh, specs)

    def check(meta: checkpoint.Meta) -> None:
        resume.check(meta, config.to_dict(), class_names, loader, schedule.total_steps, workdir)

    checkpoints = Checkpoints(workdir, config.checkpoint.keep_last)
    restored = checkpoints.restore_latest(train_state, check)
    first_step = 0
    if restored is not None:
        train_state, meta = restored
        first_step = meta.step
        loader.set_state(meta.data_state)
        print(f"going on from step {first_step} of {workdir}")
    sizes = [size_hw] if first_step < schedule.total_steps else []
    if multiscale:
        sizes = multiscale.first_uses(first_step, schedule.total_steps, size_hw, config.seed)
    is_due = functools.partial(_evaluation_is_due, schedule=schedule, every_epochs=config.eval.every_epochs)
    # Where the run ended before the evaluation of its last step did, that comes first.
    evaluates_first = first_step > 0 and is_due(first_step - 1) and first_step not in checkpoints.aps()
    sources = train_source, val_source
    run_summary.print_start(config, workdir, mesh, model, train_state, sources, schedule, len(sizes))

    def compile_step(size: tuple[int, int]) -> parallel.StepFunction:
        step = functools.partial(train_step, model=model, optimizer=optimizer, config=step_config, size_hw=size)
        mapped = parallel.map_step(step, mesh, config.parallel.kind, specs)
        return parallel.compile_step(mapped, train_state, loader.empty_batch(), mesh)

    def compile_predict() -> Predict:
        predict = make_predict(model, mesh, DetectConfig(**config.eval.detect))
        return prediction.compile_predict(predict, train_state.ema, size_hw, config.eval.batch_size)

    steps: compilation.ByKey = {size: functools.partial(compile_step, size) for size in sizes}
    predict: compilation.ByKey = {"predict": compile_predict}
    programs = compilation.Programs({**predict, **steps} if evaluates_first else {**steps, **predict})

    # ---------------------------------------------- loop -----------------------------------------------
    log = RunLog(
        workdir,
        first_step=first_step,
        first_is_evaluated=first_step in checkpoints.aps(),
        total_steps=schedule.total_steps,
        steps_per_epoch=schedule.steps_per_epoch,
        batch_size=config.batch_size,
        max_bad_steps=config.max_bad_steps,
        writes=hosts.is_primary(),
        tracker=open_tracker(config.tracker if hosts.is_primary() else "", workdir, config.to_dict()),
    )
    result = None
    save_due = SaveDue(config.checkpoint.every_steps, config.checkpoint.every_minutes, ask_every=config.log_every_steps)
    trace = StepTrace(workdir / "profile", first_step, config.profile)
    with stop_request() as stop, programs, loader, trace, contextlib.closing(log), contextlib.closing(checkpoints):

        def save(num_steps: int) -> None:
            log.check_steps()  # a state that has broken down is not one to save
            progress = (num_steps, config.to_dict(), {**loader.get_state(), "next_step": num_steps})
            meta = checkpoint.Meta(config.model, class_names, *progress, mesh.size, jax.process_count())
            checkpoints.save(train_state, meta)
            save_due.note_save()

        def show(what: str, step: int, draw_sheet: Callable[[], np.ndarray]) -> None:
            if hosts.is_primary():
                with log.untimed():
                    picture = sheets.keep_picture(workdir, f"{what}_{step}", draw_sheet())
                log.write({"step": step, "event": what, **picture})

        def evaluate_step(step: int) -> EvalResult:
            with log.untimed():
                result = _evaluate(config, programs, train_state, mesh, val_source, stop)
            show("predictions", step, lambda: sheets.predictions_sheet(val_source, result.detections))
            log.write({"step": step, "event": "evaluation", **result.ap.stats})
            checkpoints.record_ap(step + 1, result.ap.stats["AP"])
            return result

        if evaluates_first:
            result = evaluate_step(first_step - 1)
        batches = log.time_waits(loader)
        for step in range(first_step, schedule.total_steps):
            if has_stalled(checkpoints.aps(), config.patience, step):
                print(f"no better AP in the last {config.patience} evaluations: training ends at step {step}")
                break
            size = multiscale.size_at(step, size_hw, config.seed) if multiscale else size_hw
            with log.untimed():
                run_step = programs.get(size, give_up=stop.is_urgent)
            if run_step is None:
                save(step)
                raise Stopped(_farewell(stop, step, workdir))
            loaded = next(batches)
            if step in (0, schedule.no_aug_step):
                draw_batch = functools.partial(batch_sheet.draw_sheet, loaded, class_names, config.hsv.multiplies)
                show("batch", step, draw_batch)
            trace.at(step, train_state)
            train_state, metrics = run_step(train_state, shard_batch(loaded.batch, mesh))
            log.add(step, metrics, loaded.image_ids)
            log.count_dropped_boxes(step, loaded.num_dropped_boxes, config.data.max_boxes)
            if (step + 1) % config.log_every_steps == 0:
                log.report()
                trim_memory()
            stopping = stop.check()  # asked once: a signal after it is answered a step later, by all processes
            if stopping or is_due(step) or save_due(step):
                save(step + 1)
            if stopping:
                raise Stopped(_farewell(stop, step + 1, workdir))
            if is_due(step):
                result = evaluate_step(step)

        if result is None:  # the run was finished before
            result = _evaluate(config, programs, train_state, mesh, val_source, stop)

    # --------------------------------------------- finish ----------------------------------------------
    if hosts.is_primary():
        result.write(workdir / "results.json")
        sheets.write_picture(workdir / "predictions.jpg", sheets.predictions_sheet(val_source, result.detections))
    return result


@contextlib.contextmanager
def _own_directory(workdir: Path, resume: bool) -> Iterator[None]:
    """Holds the run directory for this run, cleared where it shall not resume; process 0 does so for all."""
    with claim(workdir) if hosts.is_primary() else contextlib.nullcontext():
        if hosts.is_primary() and not resume and (former := set_aside(workdir)):
            print(f"what {workdir} held is in {former} now")
        hosts.barrier("run directory")  # nobody looks into it before
        yield


def _evaluate(
    config: ConfigDict,
    programs: compilation.Programs,
    train_state: state.TrainState,
    mesh: Mesh,
    source: Source,
    stop: StopRequest,
) -> EvalResult:
    def stop_here() -> Stopped:
        return Stopped(f"{stop.signal_name}: stopped while evaluating, saved before; the same command goes on with it")

    def progress(num_done: int, num_all: int) -> None:
        print_progress(num_done, num_all)
        if stop.check():
            raise stop_here()

    predict = programs.get("predict", give_up=stop.is_urgent)
    if predict is None:
        raise stop_here()
    result = evaluate.evaluate(
        predict,
        replicate(train_state.ema, mesh),
        source,
        size_hw=tuple(config.input_size),
        batch_size=config.eval.batch_size,
        mesh=mesh,
        metric=config.eval.metric,
        threads=config.data.threads,
        progress=progress,
    )
    print(
        f"AP {result.ap.stats['AP']:.4f}  AP50 {result.ap.stats['AP50']:.4f} on {result.num_images} images", flush=True
    )
    return result


def _farewell(stop: StopRequest, num_steps: int, workdir: Path) -> str:
    return f"{stop.signal_name}: saved at step {num_steps} of {workdir}; the same command goes on from there"


def _evaluation_is_due(step: int, schedule: Schedule, every_epochs: int) -> bool:
    """At the end of every so many epochs, of each of the last plain ones, and of the run."""
    epoch, place = divmod(step + 1, schedule.steps_per_epoch)
    plain = epoch > schedule.epochs - schedule.no_aug_epochs
    return place == 0 and (epoch % every_epochs == 0 or plain or epoch == schedule.epochs)


def main() -> None:
    flag = flags.FLAGS["config"]
    config_file = config_flags.get_config_filename(flag)
    workdir = Path(_WORKDIR.value or Path("runs") / Path(config_file).stem)
    keep_freed_memory()
    quiet_libraries()
    compilation.enable_compilation_cache()
    config, where = _CONFIG.value, _CONFIG.value.parallel
    with (
        user_errors(),
        hosts.joined(where.coordinator, where.num_processes, where.process_id),
        user_errors(),
        _own_directory(workdir, config.resume),
    ):
        result = train(config, workdir)
        run_summary.print_end(result, workdir, config_file, config_flags.get_override_values(flag))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_program(main)
