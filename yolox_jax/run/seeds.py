"""Trains one config with several seeds at once (config.num_runs), each run on its own group of the devices.

Run k has the seed config.seed + k and the directory seed_<seed>. It is, bit for bit, the run that `train` makes of
`config_of` that seed on as many devices; this is tested on simulated CPU devices. All runs take their steps in one
program (training/groups.py), and are evaluated in one.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from yolox_jax.cli import run_summary
from yolox_jax.errors import UserError
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.inference.predict import compile_predict, make_predict_of_runs
from yolox_jax.mesh import platform_of, shapes_of
from yolox_jax.models.folding import folded_shapes
from yolox_jax.run.callbacks import Callbacks
from yolox_jax.run.loop import loop
from yolox_jax.run.prepare import Run, prepare
from yolox_jax.run.train import finish, restore
from yolox_jax.storage import Location
from yolox_jax.training import compilation, groups, parallel
from yolox_jax.training.halves import suits
from yolox_jax.training.history import History
from yolox_jax.training.interruption import sigterm_noted
from yolox_jax.training.open_directory import RunDirectory, opened
from yolox_jax.training.run_log import TrainingBrokeDown
from yolox_jax.training.state import TrainState
from yolox_jax.training.step import train_step


def train_seeds(config: ConfigDict, workdir: Location) -> dict[int, EvalResult]:
    """Trains or resumes a run for each seed, in a directory of its own in `workdir`. Returns their last evaluations.

    Raises:
      UserError: the devices cannot be divided among the runs, or the config has a field that is not for several.
    """
    groups.check_groups(config.num_runs, jax.device_count())
    _check_fields(config)
    with contextlib.ExitStack() as opening:
        numbers = range(config.seed, config.seed + config.num_runs)
        directories = {each: opening.enter_context(opened(workdir / f"seed_{each}", config.resume)) for each in numbers}
        mesh, runs = _prepare(config, directories)
        states, past = _restore(runs, workdir)
        of_first, like = next(iter(runs.values())), shapes_of(states[0])
        specs = parallel.state_specs(like, of_first.mesh, config.parallel.shard_state)
        joint = groups.join(states, mesh, specs)
        del states  # programs keep `like`, which has no arrays
        programs = _compile_ahead(runs, mesh, like, specs, joint, past[0].num_steps, workdir)
        with _others_named(of_first, workdir):
            results = loop(list(runs.values()), mesh, joint, past, programs, Callbacks())
        with sigterm_noted("the runs are finished, and end once their results are written"):
            for run, result in zip(runs.values(), results, strict=True):
                finish(run, result)
        return dict(zip(runs, results, strict=True))


def _check_fields(config: ConfigDict) -> None:
    several = f"but config.num_runs is {config.num_runs}"
    for name, unused in (("patience", None), ("tracker", ""), ("profile", 0)):
        if config[name] != unused:
            raise UserError(f"config.{name} is {config[name]!r}, {several}", f"leave config.{name} out")
    if config.parallel.kind != "shard_map":
        raise UserError(f"config.parallel.kind is {config.parallel.kind!r}, {several}", "choose shard_map")
    if (keep_last := config.checkpoint.keep_last) < 2:
        what = f"config.checkpoint.keep_last is {keep_last}, {several}, and each may be one save ahead of the others"
        raise UserError(what, "give 2 or more")


def config_of(config: ConfigDict, seed: int) -> ConfigDict:
    """Returns the config of one run: with it, `train` makes this run alone.

    All runs have the same image size at a step, so the sizes are those of the first seed in all.
    """
    own = config.copy_and_resolve_references()
    own.num_runs, own.seed = 1, seed
    own.multiscale.seed = config.seed if config.multiscale.seed is None else config.multiscale.seed
    return own


def _prepare(config: ConfigDict, directories: dict[int, RunDirectory]) -> tuple[Mesh, dict[int, Run]]:
    mesh, meshes = groups.meshes(len(directories))
    runs: dict[int, Run] = {}
    sources = None
    for (seed, directory), own_mesh in zip(directories.items(), meshes, strict=True):
        runs[seed] = prepare(config_of(config, seed), directory, own_mesh, sources)
        sources = runs[seed].train_source, runs[seed].val_source
    return mesh, runs


def _restore(runs: dict[int, Run], workdir: Location) -> tuple[list[TrainState], list[History]]:
    """Returns state and log of each run, at the newest step that all have saved, or anew if none has saved any.

    Raises:
      UserError: there are checkpoints, but there is no step that all runs have saved and that can be read of all.
    """
    saved = {seed: run.checkpoints.steps() for seed, run in runs.items()}
    common = set.intersection(*map(set, saved.values()))
    newest = max(common, default=None)
    while common or not any(saved.values()):
        restored = [restore(run, newest) for run in runs.values()]
        if all(past.num_steps == (newest or 0) for _, past in restored):
            if newest is not None:
                _set_aside_after(newest, runs, saved)
            return [state for state, _ in restored], [past for _, past in restored]
        common = {step for step in common if step != newest}  # it cannot be read of all
        newest = max(common, default=None)
    there = "; ".join(f"seed_{seed}: {', '.join(map(str, steps)) or 'none'}" for seed, steps in saved.items())
    raise UserError(
        f"{workdir} has no checkpoint of the same step, which can be read, for each seed; the steps are {there}",
        "give another --workdir, or config.seed and config.num_runs of the seeds that are there, or start over with "
        "--config.resume=false, which moves what is there to a folder",
    )


def _set_aside_after(newest: int, runs: dict[int, Run], saved: dict[int, list[int]]) -> None:
    """Renames the checkpoints of the steps that run again: they would count as the newest of their run."""
    if later := [f"seed_{seed}/{step}" for seed, steps in saved.items() for step in steps if step > newest]:
        print(
            f"not all runs have been saved at the same step: all resume from step {newest}, and the checkpoints "
            f"{', '.join(later)} are set aside as STEP.ahead-N"
        )
    for run in runs.values():
        run.checkpoints.set_aside_after(newest)
        run.directory.copy()


@contextlib.contextmanager
def _others_named(first: Run, workdir: Location) -> Iterator[None]:
    """Adds to the error of a run that broke down how the others go on without it."""
    try:
        yield
    except TrainingBrokeDown as error:
        alone = f"--config.seed=K --config.multiscale.seed={first.config.multiscale.seed} --workdir={workdir}/seed_K"
        raise TrainingBrokeDown(
            error.what, f"{error.advice}; every other run goes on alone from its last checkpoint, with {alone}"
        ) from error


def _compile_ahead(
    by_seed: dict[int, Run],
    mesh: Mesh,
    state: TrainState,
    specs: Any,
    joint: TrainState,
    first_step: int,
    workdir: Location,
) -> compilation.Programs:
    """Prepares what `train.compile_ahead` does, for all runs together.

    `state` has the shapes of one run's, and `specs` say how it lies on that run's own mesh; `joint` and `mesh` are of
    all runs.
    """
    runs = list(by_seed.values())
    run = runs[0]
    uses = run.uses_from(first_step, any(each.lacks_evaluation(first_step) for each in runs))
    sources = run.train_source, run.val_source
    num_sizes = len(uses) - 1  # all but evaluation
    shown = run.config, workdir, mesh, state, sources, run.schedule, num_sizes, run.model.cpu_kernels
    run_summary.print_start(*shown)
    names = ", ".join(f"seed_{seed}" for seed in by_seed)
    print(f"{len(runs)} runs at once on {run.mesh.size} device(s) each: {names}", flush=True)
    like = shapes_of(joint)
    batch = _joined_shapes(run.loader.empty_batch(), len(runs))
    step = functools.partial(
        train_step,
        model=run.model,
        optimizer=run.optimizer,
        config=run.step_config,
        in_branch=suits(mesh),  # as in halves, in which a run alone is compiled: both have the same bits
    )

    def trace_step(size_hw: tuple[int, int]) -> compilation.Compile:
        mapped = groups.map_step(functools.partial(step, size_hw=size_hw), mesh, state, specs)
        return parallel.trace_step(mapped, like, batch, mesh, run.model.cpu_kernels)

    folded = folded_shapes(run.model, state.ema, platform_of(mesh))
    predict = make_predict_of_runs(run.model, mesh, run.detect_config)
    args = predict, _joined_shapes(folded, len(runs)), run.size_hw, run.config.eval.batch_size, run.model.cpu_kernels
    compile_evaluation = functools.partial(compile_predict, *args)
    return compilation.of_run(uses, trace_step, compile_evaluation)


def _joined_shapes(tree: Any, num_runs: int) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(groups.joined_shape(x.shape, num_runs), x.dtype), tree)
