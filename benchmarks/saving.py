"""Measures saving and restoring: python -m benchmarks.saving [--model=nano] [--size=416] [--batch=8]

Alternates between groups of training steps with a save before them and groups without. The cost of a save is the time
until it returns (it copies the arrays), plus the slowdown of the steps while its files are written. Then restores the
last checkpoint several times, and compares that with the time in which the hashes of its files are verified.
"""

import argparse
import functools
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from tests.training import toy
from yolox_jax.detection.losses import LossConfig
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.models import yolox
from yolox_jax.training import optim, parallel, state
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.step import StepConfig, train_step
from yolox_jax.types import Batch
from yolox_jax.weights import checkpoint

_STEPS_PER_TURN = 8  # longer than writing a checkpoint takes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=6, help="groups of steps with a save; as many have none")
    arguments = machine.parse_quiet(parser)
    mesh = make_mesh()
    model, optimizer = yolox.create(arguments.model), optim.sgd(0.9, 5e-4)
    schedule = Schedule(0.01, 100, 10, warmup_epochs=1, no_aug_epochs=1, min_lr_ratio=0.05)
    config = StepConfig(schedule, 0.9998, SimOtaConfig(), LossConfig())
    step = parallel.map_step(functools.partial(train_step, model=model, optimizer=optimizer, config=config), mesh)
    train_state = place(state.create(state.init_variables(model, 0), optimizer), mesh)
    batch = shard_batch(_batch(arguments.batch, arguments.size), mesh)
    train_state, metrics = step(train_state, batch)  # compiles
    jax.block_until_ready(metrics)

    returning: list[float] = []
    with_save: list[float] = []
    without: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        for turn in range(2 * arguments.turns):
            start = time.perf_counter()
            if turn % 2 == 0:
                checkpoints.save(train_state, toy.meta(turn + 1))
                returning.append(time.perf_counter() - start)
            for _ in range(_STEPS_PER_TURN):
                train_state, metrics = step(train_state, batch)
                jax.block_until_ready(metrics)
            (without if turn % 2 else with_save).append(time.perf_counter() - start)
        checkpoints.close()
        restoring, verifying = _restoring(Checkpoints(Path(folder)), train_state)

    per_step = statistics.median(without) / _STEPS_PER_TURN
    cost = statistics.median(a - b for a, b in zip(with_save, without, strict=True))
    print(f"YOLOX-{arguments.model}, {arguments.batch} images at {arguments.size}: a step takes {per_step:.2f} s")
    print(f"a save returns after {statistics.median(returning):.3f} s and costs {cost:.3f} s in total")
    for minutes in (1, 10):
        print(f"with a save every {minutes} min, saving takes {cost / (60 * minutes):.2%} of the time")
    print(f"a restore takes {restoring:.3f} s, of which verifying the hashes takes {verifying / restoring:.1%}")


def _restoring(checkpoints: Checkpoints, like: state.TrainState, times: int = 5) -> tuple[float, float]:
    """The seconds of a restore, and of the verification in it: the medians of several."""
    restoring, verifying = [], []
    for _ in range(times):
        start = time.perf_counter()
        restored = checkpoints.restore_latest(like, lambda meta: None)
        assert restored is not None
        jax.block_until_ready(restored[0])
        restoring.append(time.perf_counter() - start)
        start = time.perf_counter()
        checkpoint.verify(checkpoints.path(checkpoints.steps()[-1]))
        verifying.append(time.perf_counter() - start)
    return statistics.median(restoring), statistics.median(verifying)


def _batch(batch: int, size: int) -> Batch:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, size / 2, (batch, 20, 2))
    return Batch(
        images=jnp.asarray(rng.integers(0, 256, (batch, size, size, 3)), jnp.uint8),
        gt_boxes=jnp.asarray(np.concatenate([low, low + rng.uniform(16, size / 3, low.shape)], axis=2), jnp.float32),
        gt_labels=jnp.asarray(rng.integers(0, 80, (batch, 20)), jnp.int32),
        gt_mask=jnp.ones((batch, 20), bool),
    )


if __name__ == "__main__":
    main()
