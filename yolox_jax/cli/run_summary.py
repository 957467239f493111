"""The summaries that programs print at the start and at the end."""

import shlex
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from yolox_jax.cli.commands import how_to_run
from yolox_jax.data.sources import several
from yolox_jax.detection.anchors import check_size
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.evaluation.seed_table import seed_table
from yolox_jax.models import yolox
from yolox_jax.storage import Location
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.state import TrainState
from yolox_jax.types import Source


def print_start(
    config: ConfigDict,
    workdir: Location,
    mesh: Mesh,
    train_state: TrainState,
    sources: tuple[Source, Source],
    schedule: Schedule,
    num_sizes: int,
    cpu_kernels: str,
) -> None:
    """Prints model, devices, data, number of steps, and the run directory."""
    train_source, val_source = sources
    names = ", ".join(train_source.class_names[:8]) + (" …" if len(train_source.class_names) > 8 else "")
    height, width = check_size(config.input_size)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(train_state.params))
    plain = yolox.create(config.model, len(train_source.class_names), space_to_depth=False)
    flops = yolox.count_flops(plain, (height, width))
    parts = f" in {config.accumulate_steps} parts each" if config.accumulate_steps > 1 else ""
    by = " by oneDNN" if cpu_kernels == "onednn" else ""
    frozen = f"; {', '.join(config.freeze)} frozen" if config.freeze else ""
    print(
        f"YOLOX-{config.model}, {num_params:,} parameters{frozen}, "
        f"{flops / 1e9:.1f} GFLOP per image at {height}x{width}, "
        f"{yolox.compute_dtype(config.dtype)}{by} on {mesh.size} {mesh.devices.flat[0].device_kind} device(s)\n"
        f"{len(train_source)} training and {len(val_source)} validation images of {several.kinds(config.data)} data, "
        f"{len(train_source.class_names)} classes: {names}\n"
        f"{schedule.total_steps} steps of {config.batch_size} images{parts}, {schedule.epochs} epochs; "
        f"the run directory is {workdir}\n"
        f"{num_sizes} image size(s), each with a program: the first compiles now, the others in the background",
        flush=True,
    )


def print_seeds(results: Mapping[int, EvalResult], workdir: Location) -> None:
    """Prints the numbers of several runs by seed, their mean and its standard error."""
    table = seed_table({seed: result.ap for seed, result in results.items()})
    folders = ", ".join(f"seed_{seed}" for seed in results)
    print(f"\n{table}\n\nEach run is written to a folder in {workdir}, which --weights takes: {folders}")


def print_end(result: EvalResult, workdir: Location, config_file: str, changed: Mapping[str, Any]) -> None:
    """Prints the result and what to do next; `changed` has the config fields that the command line set."""
    print_result(result, workdir)
    overrides = [f"--config.{field}={value}" for field, value in changed.items()]
    again = [*how_to_run("eval"), f"--config={config_file}", f"--weights={workdir}", *overrides]
    own = [*how_to_run("train"), "--config=configs/finetune.py", "--workdir=runs/mine", "--config.data.root=DIR"]
    print(
        "\nEvaluate these weights again:\n"
        f"  {shlex.join(again)}\n"
        "Train on your own data, a COCO JSON file and a folder of images:\n"
        f"  {shlex.join(own)}"
    )


def print_ap(result: EvalResult) -> None:
    """Prints AP, the number of images and the speed."""
    speed = f", {result.images_per_second:.1f} images/s" if result.images_per_second else ""
    print(f"\n{result.ap.table()}\n\n{result.num_images} images{speed}")


def print_result(result: EvalResult, workdir: Location) -> None:
    """Prints AP and what was written."""
    print(
        f"\n{result.ap.table()}\n\n"
        f"Written to {workdir}: checkpoints/ ({workdir}/best and {workdir}/last as weights), metrics.jsonl, "
        "tensorboard/, pictures/, results.json, predictions.jpg (eight validation images)"
    )
