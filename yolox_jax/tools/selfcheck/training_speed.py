"""Times training on one device: compilation, images a second, memory, and the share of time that waits for data."""

import contextlib
import dataclasses
import functools
import json
import time
from typing import Any, cast

import jax
import numpy as np
from ml_collections import ConfigDict

from yolox_jax.cli import from_config
from yolox_jax.detection.anchors import check_size
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.models import yolox
from yolox_jax.tools.selfcheck import memory, pictures, prediction
from yolox_jax.tools.selfcheck.report import Line
from yolox_jax.tools.selfcheck.setting import Record, Setting
from yolox_jax.training import parallel, state
from yolox_jax.training.run_log import RunLog
from yolox_jax.training.step import train_step
from yolox_jax.types import Batch, Source

_NUM_IMAGES = 64  # of the data set; a larger batch has some of them twice
_NUM_TRACED = 3  # steps
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class _CacheHits:
    """Counts the programs that are read from the compilation cache."""

    def __init__(self) -> None:
        self.number = 0
        jax.monitoring.register_event_listener(self._note)

    def _note(self, event: str, **kwargs: str | int) -> None:
        self.number += event == _CACHE_HIT


@dataclasses.dataclass(frozen=True)
class _Trial:
    """A step that was compiled and run at some batch size."""

    batch_size: int
    step: Any  # a jax.stages.Compiled
    compile_s: float
    is_cached: bool  # the program was read from the compilation cache
    images_per_s: float
    peak_bytes: int | None  # the most memory so far in this process, None if not reported
    is_own_peak: bool  # this trial needed it, not an earlier one, such as one that did not fit


@dataclasses.dataclass(frozen=True)
class _Training:
    """Everything that is the same at every batch size."""

    config: ConfigDict
    source: Source
    images: Batch  # of the host, with boxes
    start: Any  # a TrainState of the host
    optimizer: Any  # an optax.GradientTransformation
    cache_hits: _CacheHits

    def at(self, batch_size: int) -> ConfigDict:
        """The config with this batch size."""
        config = self.config.copy_and_resolve_references()
        config.batch_size = batch_size
        return config


def check(setting: Setting, record: Record, *, name: str) -> None:
    """Times the network `name`. Its first line is recorded anew whenever a larger batch fits, in case time runs out."""
    training, device = _prepare(setting, name), jax.devices()[0]
    best: _Trial | None = None

    def fits(batch_size: int) -> bool:
        nonlocal best
        print(f"trying {batch_size} images", flush=True)
        try:
            trial = _try(training, batch_size, setting.size.seconds)
        except jax.errors.JaxRuntimeError as error:
            if not memory.is_out_of_memory(error):
                raise
            print(f"{batch_size} images do not fit: {str(error).splitlines()[0]}", flush=True)
            return False
        if best is None or best.batch_size < batch_size:
            best = trial
            record(_speed(training, name, best, "the most that was tried before the time was up"))
        return True

    first, limit = setting.size.first_batch, memory.limit_bytes(device)
    # Without a known limit, as on a CPU, the system would kill the process that takes too much.
    most = setting.size.max_batch if limit else first
    largest = memory.largest_batch(fits, first, most, lambda: _predict(training, best, limit))
    if best is None:
        record(Line(f"training {name}", "FAIL", "not even one image fits into the memory of this device"))
        return
    why = "the most that is tried" if largest == most else "the largest power of two that fits"
    record(_speed(training, name, best, why))
    record(_waiting(setting, training, name, best))
    record(_profile(setting, training, name, best))
    record(prediction.line(name, device, best.step, best.batch_size, best.images_per_s))


def _prepare(setting: Setting, name: str) -> _Training:
    folder = setting.scratch / "pictures"
    if not folder.exists():
        pictures.write(folder, _NUM_IMAGES)
    config = setting.config(f"yolox_{name}")
    config.data.root = str(folder)
    config.data.update({"train": "all.json", "train_images": "images", "val": "all.json", "val_images": "images"})
    config.multiscale.enabled = False
    config.batch_size = setting.size.first_batch
    source = from_config.open_source(config, "train")
    schedule = from_config.schedule(config, len(source))
    with from_config.train_loader(config, source, schedule) as loader:
        images = next(loader).batch
    optimizer, dtype = from_config.optimizer(config), yolox.compute_dtype(config.dtype)
    variables = state.init_variables(from_config.model(config, len(source.class_names)), config.seed)
    start = jax.device_get(state.create(variables, optimizer, dtype))
    return _Training(config, source, images, start, optimizer, _CacheHits())


def _try(training: _Training, batch_size: int, seconds: float) -> _Trial:
    """Compiles the step and times it. Raises JaxRuntimeError if the memory is full."""
    config, mesh, device = training.at(batch_size), make_mesh(1), jax.devices()[0]
    step = functools.partial(
        train_step,
        model=from_config.model(config, len(training.source.class_names)),
        optimizer=training.optimizer,
        config=from_config.step_config(config, from_config.schedule(config, len(training.source))),
        size_hw=check_size(config.input_size),
    )
    batch = _repeated(training.images, batch_size)
    train_state = place(training.start, mesh)
    num_hits, start = training.cache_hits.number, time.perf_counter()
    compiled = cast(Any, parallel.compile_step(parallel.map_step(step, mesh), train_state, batch, mesh))
    compile_s, is_cached = time.perf_counter() - start, training.cache_hits.number > num_hits
    before_bytes = memory.peak_bytes(device)
    sharded = shard_batch(batch, mesh)
    train_state, _ = compiled(train_state, sharded)  # the first call allocates
    jax.block_until_ready(train_state)
    num_steps, start = 0, time.perf_counter()
    before: Any = None
    while time.perf_counter() - start < seconds:
        train_state, metrics = compiled(train_state, sharded)
        jax.block_until_ready(before)  # one step ahead of the device, as in training
        num_steps, before = num_steps + 1, metrics
    jax.block_until_ready(train_state)
    images_per_s = num_steps * batch_size / (time.perf_counter() - start)
    print(f"{batch_size} images fit: {images_per_s:.1f} images/s, compiled in {compile_s:.1f} s", flush=True)
    peak_bytes = memory.peak_bytes(device)
    return _Trial(batch_size, compiled, compile_s, is_cached, images_per_s, peak_bytes, peak_bytes != before_bytes)


def _repeated(images: Batch, batch_size: int) -> Batch:
    """A batch of any size from few images."""
    return jax.tree.map(lambda x: x[np.arange(batch_size) % len(x)], images)


def _predict(training: _Training, first: _Trial | None, limit: int | None) -> float:
    """The batch that the memory holds, if the temporaries of the first trial's program grow with the batch."""
    assert first is not None
    constant = sum(leaf.nbytes for leaf in jax.tree.leaves(training.start))
    per_image = (memory.program_bytes(first.step) - constant) / first.batch_size
    return ((limit or 0) - constant) / per_image if per_image > 0 else first.batch_size


def _speed(training: _Training, name: str, trial: _Trial, why: str) -> Line:
    config, device = training.config, jax.devices()[0]
    height, width = config.input_size
    program, peak, limit = memory.program_bytes(trial.step), trial.peak_bytes, memory.limit_bytes(device)
    figures = {
        "batch_size": trial.batch_size,
        "dtype": str(yolox.compute_dtype(config.dtype)),
        "input_size": [height, width],
        "images_per_s": trial.images_per_s,
        "compile_s": trial.compile_s,
        "program_is_cached": trial.is_cached,
        "program_bytes": program,
        "peak_bytes": peak,
        "is_own_peak": trial.is_own_peak,
        "limit_bytes": limit,
    }
    compiled = "read from the compilation cache" if trial.is_cached else "compiled"
    at_most = "" if trial.is_own_peak else "at most "  # JAX cannot reset the peak, and an earlier trial reached it
    used = "not reported by this device" if peak is None else f"{at_most}{peak / 1e9:.2f} GB"
    of = "" if limit is None else f" of {limit / 1e9:.2f} GB"
    text = (
        f"{trial.images_per_s:.1f} images/s in batches of {trial.batch_size}, {why}; {figures['dtype']}, "
        f"{height}x{width}; {compiled} in {trial.compile_s:.1f} s; memory by the compiler {program / 1e9:.2f} GB, "
        f"peak {used}{of}"
    )
    return Line(f"training {name}", "measured", text, figures)


def _waiting(setting: Setting, training: _Training, name: str, trial: _Trial) -> Line:
    """Trains as train.py does, with samples from the loader."""
    config, mesh, folder = training.at(trial.batch_size), make_mesh(1), setting.scratch / f"run_{name}"
    folder.mkdir()
    schedule = from_config.schedule(config, len(training.source))
    log = RunLog(
        folder,
        total_steps=schedule.total_steps,
        steps_per_epoch=schedule.steps_per_epoch,
        batch_size=config.batch_size,
        max_bad_steps=config.max_bad_steps,
    )
    train_state = place(training.start, mesh)
    with contextlib.closing(log), from_config.train_loader(config, training.source, schedule) as loader:
        report_at, start = 1, time.perf_counter()
        for step, loaded in enumerate(log.time_waits(loader)):
            train_state, metrics = trial.step(train_state, shard_batch(loaded.batch, mesh))
            log.add(step, metrics, loaded.image_ids)
            if step == report_at:  # what was prefetched during the start is used up
                log.report()
                start = time.perf_counter()
            elif step > report_at + 1 and time.perf_counter() - start > setting.size.seconds:
                log.report()
                break
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    figures = {key: last[key] for key in ("images_per_second", "data_wait")}
    figures["threads"] = from_config.num_threads(config)
    text = (
        f"{figures['data_wait']:.1%} of the time waits for data, at {figures['images_per_second']:.1f} images/s with "
        f"samples from {figures['threads']} threads"
    )
    return Line(f"waiting {name}", "measured", text, figures)


def _profile(setting: Setting, training: _Training, name: str, trial: _Trial) -> Line:
    folder, mesh = setting.output / "profile" / name, make_mesh(1)
    train_state, kept = place(training.start, mesh), set(folder.rglob("*"))
    sharded = shard_batch(_repeated(training.images, trial.batch_size), mesh)
    with jax.profiler.trace(folder, create_perfetto_trace=True):
        for _ in range(_NUM_TRACED):
            train_state, _ = trial.step(train_state, sharded)
        jax.block_until_ready(train_state)
    num_bytes = sum(file.stat().st_size for file in set(folder.rglob("*")) - kept if file.is_file())
    text = f"{_NUM_TRACED} steps in {folder}, {num_bytes / 1e6:.1f} MB"
    return Line(f"profile {name}", "pass" if num_bytes else "FAIL", text, {"bytes": num_bytes})
