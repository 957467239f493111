"""Times a training step: forward, assignment, loss, backward, optimizer and EMA, on the device that JAX takes.

python -m benchmarks.train_step [--case=nano:416:8 …] [--dtype=float32] [--threads=2] [--rounds=7] [--cpu_kernels=auto]
                              [--peer=PATH]

--peer also times the step of the official PyTorch YOLOX, from a checkout, in interleaved rounds in the same process and
with the same weights, images and boxes. Unless the dtype is float32, it runs in its own mixed precision: float16 by
autocast, and a loss scale. It needs PyTorch. The losses of the first step are printed side by side.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.official import Official
from benchmarks.turns import OURS, print_times, take_turns, use_cores
from yolox_jax import compiler_options
from yolox_jax.detection.losses import LossConfig
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.mesh import make_mesh, place, platform_of, shard_batch
from yolox_jax.models import yolox
from yolox_jax.training import halves, optim, parallel, state
from yolox_jax.training.host_memory import keep_freed_memory
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.step import StepConfig, train_step
from yolox_jax.types import Batch

_SLOTS = 120
_MAX_BOXES = 30  # per image
_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY = 1e-4, 0.9, 5e-4
_SCHEDULE = Schedule(_LEARNING_RATE, 1000, 100, warmup_epochs=0, no_aug_epochs=1, min_lr_ratio=0.05)
_CONFIG = StepConfig(_SCHEDULE, 0.9998, SimOtaConfig(), LossConfig())


def random_batch(size: int, batch: int) -> Batch:
    """Makes images of noise, each with 1 to 30 boxes."""
    rng = np.random.default_rng(0)
    low_BG2 = rng.uniform(0, 0.6 * size, (batch, _SLOTS, 2))
    high_BG2 = low_BG2 + rng.uniform(20, 0.35 * size, low_BG2.shape)
    arrays: dict[str, Any] = {  # of the host, as the loader makes them
        "images": rng.integers(0, 256, (batch, size, size, 3)).astype(np.uint8),
        "gt_boxes": np.concatenate([low_BG2, high_BG2], axis=2).astype(np.float32),
        "gt_labels": rng.integers(0, 80, (batch, _SLOTS)).astype(np.int32),
        "gt_mask": np.arange(_SLOTS)[None] < rng.integers(1, _MAX_BOXES + 1, (batch, 1)),
    }
    return Batch(**arrays)


def our_step(
    name: str, variables: Any, batch: Batch, dtype: jnp.dtype = jnp.float32, cpu_kernels: str = "auto"
) -> Callable[[], float]:
    """Returns a function that runs the next step and returns its loss. Prints the time of compiling it."""
    mesh = make_mesh(1)
    optimizer = optim.create("sgd", momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY)
    kernels = compiler_options.choose_cpu_kernels(cpu_kernels, platform_of(mesh), _SCHEDULE.total_steps)
    model = yolox.create(name, dtype=dtype, cpu_kernels=kernels)
    train_state = place(state.create(variables, optimizer, dtype), mesh)
    sharded = shard_batch(batch, mesh)
    start = time.perf_counter()
    if halves.suits(mesh):  # as train.py compiles it
        both = halves.Halves(model, optimizer, _CONFIG, mesh)
        compiled: Any = both.joined(
            both.trace_gradients(train_state, batch, None)(), update=both.trace_update(train_state)()
        )
    else:
        step = functools.partial(train_step, model=model, optimizer=optimizer, config=_CONFIG, size_hw=None)
        compiled = parallel.compile_step(parallel.map_step(step, mesh), train_state, batch, mesh)
    took = f"traced and compiled in {time.perf_counter() - start:.1f} s"
    print(f"       cpu_kernels={model.cpu_kernels}: {took}", flush=True)

    def run() -> float:
        nonlocal train_state
        train_state, metrics = compiled(train_state, sharded)
        jax.block_until_ready(train_state)
        return float(metrics["loss"])

    return run


def their_step(peer: Official, name: str, is_mixed: bool, variables: Any, batch: Batch) -> Callable[[], float]:
    """Returns a function that runs the next step of the official code, as its trainer does; `is_mixed`: as --fp16."""
    exp, model = peer.create(name, variables)
    model.to(peer.device).train()
    optimizer = exp.get_optimizer(len(batch.images))
    ema = peer.utils.ModelEMA(model, 0.9998)
    images, boxes, labels, mask = map(np.asarray, (batch.images, batch.gt_boxes, batch.gt_labels, batch.gt_mask))
    inputs = peer.images(images).to(peer.device), peer.targets(boxes, labels, mask).to(peer.device)
    scaler = peer.torch.amp.GradScaler(peer.device, enabled=is_mixed)
    for group in optimizer.param_groups:
        group["lr"] = _LEARNING_RATE

    def run() -> float:
        with peer.torch.autocast(peer.device, dtype=peer.torch.float16, enabled=is_mixed):
            loss = model(*inputs)["total_loss"]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        ema.update(model)
        return loss.item()

    return run


def measure(
    name: str, size: int, batch_size: int, dtype: jnp.dtype, rounds: int, cpu_kernels: str, peer: Official | None
) -> None:
    batch = random_batch(size, batch_size)
    variables = state.init_variables(yolox.create(name), seed=0)
    copied = jax.tree.map(np.array, variables)  # the first step donates ours
    contenders = {OURS: our_step(name, variables, batch, dtype, cpu_kernels)}
    if peer:
        contenders["official PyTorch"] = their_step(peer, name, dtype != jnp.float32, copied, batch)
    first_losses = {contender: run() for contender, run in contenders.items()}
    print("       first loss: " + ", ".join(f"{contender} {loss:.6f}" for contender, loss in first_losses.items()))
    times = take_turns(contenders, rounds)
    print_times(f"{name:<4} {size:>4} x{batch_size:<2}", times, batch_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="MODEL:SIZE:BATCH; may be repeated")
    parser.add_argument("--dtype", default="float32", help="the compute dtype, as config.dtype")
    parser.add_argument("--threads", type=int, default=2, help="cores and threads of each contender")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps; the median is printed")
    parser.add_argument("--cpu_kernels", default="auto", help="auto, onednn or xla, as config.cpu_kernels")
    parser.add_argument("--peer", type=Path, help="a checkout of the official PyTorch YOLOX")
    arguments = machine.parse_quiet(parser)
    use_cores(arguments.threads)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else PyTorch finds a GPU full
    keep_freed_memory()  # as train.py does; affects the peer too
    peer = Official(arguments.peer, arguments.threads) if arguments.peer else None
    dtype, device = yolox.compute_dtype(arguments.dtype), jax.devices()[0]
    print(f"{device.device_kind}, {arguments.threads} threads, {dtype.name}")
    for case in arguments.case or ("nano:416:8", "s:640:4"):
        name, size, batch_size = case.split(":")
        measure(name, int(size), int(batch_size), dtype, arguments.rounds, arguments.cpu_kernels, peer)


if __name__ == "__main__":
    main()
