"""Trains a detector. train() is the table of contents: prepare, restore, compile ahead, loop, finish."""

import functools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from yolox_jax.cli import run_summary, same_weights
from yolox_jax.data.sources import usable
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.inference import predict as prediction
from yolox_jax.inference.predict import make_predict
from yolox_jax.mesh import place, platform_of, shapes_of
from yolox_jax.models import freezing, yolox
from yolox_jax.models.folding import folded_shapes
from yolox_jax.run.callbacks import Callbacks
from yolox_jax.run.loop import loop
from yolox_jax.run.prepare import Run, prepare
from yolox_jax.training import compilation, history, hosts, parallel, resume, state
from yolox_jax.training.halves import Halves, suits
from yolox_jax.training.history import History
from yolox_jax.training.interruption import sigterm_noted
from yolox_jax.training.open_directory import RunDirectory
from yolox_jax.training.state import TrainState
from yolox_jax.training.step import train_step
from yolox_jax.visualize import sheets
from yolox_jax.weights import checkpoint
from yolox_jax.weights.load import load_weights


def train(config: ConfigDict, directory: RunDirectory, callbacks: Callbacks) -> EvalResult:
    """Trains as `config` says, resuming the run in `directory` if it holds one. Returns the last evaluation."""
    run = prepare(config, directory)
    train_state, past = restore(run)
    programs = compile_ahead(run, train_state, past.num_steps)
    (result,) = loop([run], run.mesh, train_state, [past], programs, callbacks)
    with sigterm_noted("the run is finished, and ends once its results are written"):
        finish(run, result)
    return result


def restore(run: Run, newest: int | None = None) -> tuple[TrainState, History]:
    """Returns the newest checkpoint's state, or a new one, and the log of its steps; the loader starts after them.

    With `newest`, checkpoints of later steps are not read here; `Checkpoints.set_aside_after` makes them count nowhere.
    """
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

    restored = run.checkpoints.restore_latest(train_state, check, newest)
    train_state, meta = (train_state, None) if restored is None else restored
    if meta is not None:
        run.loader.set_state(meta.data_state)
        print(f"resuming from step {meta.step} of {directory.address}")
    return train_state, history.resumed(directory.path, directory.address, meta, run.checkpoints)


def compile_ahead(run: Run, train_state: TrainState, first_step: int) -> compilation.Programs:
    """Prepares the programs of each image size and of evaluation, to be compiled in order of first use by `loop`.

    On a CPU, whose compiler leaves a core idle, the update is compiled beside the first gradients.
    """
    config, mesh = run.config, run.mesh
    uses = run.uses_from(first_step, run.lacks_evaluation(first_step))
    sources = run.train_source, run.val_source
    num_sizes = len(uses) - 1  # all but evaluation
    shown = config, run.directory.address, mesh, train_state, sources, run.schedule, num_sizes, run.model.cpu_kernels
    run_summary.print_start(*shown)
    specs = parallel.state_specs(train_state, mesh, config.parallel.shard_state)
    # Shapes only: the loop donates the arrays of the state while programs still compile.
    like = shapes_of(train_state)

    step = functools.partial(train_step, model=run.model, optimizer=run.optimizer, config=run.step_config)
    halves = Halves(run.model, run.optimizer, run.step_config, mesh, specs)
    in_halves = suits(mesh, config.parallel.kind)
    batch = run.loader.empty_batch()

    def trace_step(size_hw: tuple[int, int]) -> compilation.Compile:
        if in_halves:
            compile_gradients = halves.trace_gradients(like, batch, size_hw)
            return lambda: halves.joined(compile_gradients(), programs.wait("update"))
        mapped = parallel.map_step(functools.partial(step, size_hw=size_hw), mesh, config.parallel.kind, specs)
        return parallel.trace_step(mapped, like, batch, mesh, run.model.cpu_kernels)

    def compile_evaluation() -> Callable[..., Any]:
        predict = make_predict(run.model, mesh, run.detect_config, repeatable=True)
        folded = folded_shapes(run.model, like.ema, platform_of(mesh))
        return prediction.compile_predict(predict, folded, run.size_hw, config.eval.batch_size, run.model.cpu_kernels)

    update: compilation.ByKey = {"update": functools.partial(halves.trace_update, like)}
    beside_first = update if in_halves and num_sizes else {}
    programs = compilation.of_run(uses, trace_step, compile_evaluation, beside_first)
    return programs


def finish(run: Run, result: EvalResult) -> None:
    """Writes results.json and predictions.jpg, and repeats the warning that the data is mostly unusable."""
    if hosts.is_primary():
        result.write(run.directory.path / "results.json")
        usable.warn_again(run.train_source)
        sheet = sheets.predictions_sheet(run.val_source, result.detections)
        sheets.write_picture(run.directory.path / "predictions.jpg", sheet)
