"""Runs the eight steps of trajectory.npz with our training step.

As a program (python -m tests.training.trajectory) it runs them in float64, by replacing float32 in the whole project,
and prints losses, positives and norms as json. The reference wrote trajectory_float64.json in the same way.
"""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp

if __name__ == "__main__":  # before anything of the project is imported
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64

import numpy as np

from tests.material import golden, nano_of_seven_classes
from tests.training import toy
from yolox_jax.boxes import cxcywh_to_xyxy
from yolox_jax.compiler_options import CpuKernels
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.models import yolox
from yolox_jax.training import optim, parallel, state
from yolox_jax.training.loss_scale import LossScale
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.step import train_step
from yolox_jax.types import Batch
from yolox_jax.weights import official


def run(
    num_steps: int,
    dtype: jnp.dtype = jnp.float32,
    loss_scale: LossScale | None = None,
    cpu_kernels: CpuKernels = "xla",
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The metrics of each step, and the final norm of every tensor and of its EMA."""
    arrays = golden("trajectory")
    model, variables = nano_of_seven_classes()
    if (dtype, cpu_kernels) != (jnp.float32, "xla"):
        model = yolox.create("nano", 7, dtype, cpu_kernels=cpu_kernels)
    schedule = Schedule(0.01 / 64 * 4, 4, 5, warmup_epochs=1, no_aug_epochs=1, min_lr_ratio=0.05)
    optimizer = optim.sgd(momentum=0.9, weight_decay=5e-4)
    mesh = make_mesh(1)
    step = functools.partial(train_step, model=model, optimizer=optimizer, config=toy.step_config(schedule))
    mapped = parallel.map_step(step, mesh)
    begin = state.create(variables, optimizer).replace(loss_scale=loss_scale)
    now, history = place(begin, mesh), []
    for number in range(num_steps):
        labels = jnp.asarray(arrays[f"labels/{number}"], jnp.float32)
        batch = Batch(
            images=jnp.asarray(arrays[f"images/{number}"].transpose(0, 2, 3, 1), jnp.float32),
            gt_boxes=cxcywh_to_xyxy(labels[..., 1:]),
            gt_labels=labels[..., 0].astype(jnp.int32),
            gt_mask=labels.sum(axis=2) > 0,
        )
        batch = jax.device_get(batch)
        if number == 0:
            mapped = parallel.compile_step(mapped, now, batch, mesh, cpu_kernels)
        now, metrics = mapped(now, shard_batch(batch, mesh))
        history.append(jax.device_get(metrics))
    norms = {}
    raw = {"params": now.params, "batch_stats": now.batch_stats}
    for prefix, tree in (("norm", raw), ("ema_norm", now.ema)):
        for name, tensor in official.to_state_dict(jax.device_get(tree), model).items():
            norms[f"{prefix}/{name}"] = float(np.linalg.norm(tensor.astype(np.float64)))
    return history, norms


if __name__ == "__main__":
    history, norms = run(num_steps=8)
    losses, num_fg = ([float(metrics[key]) for metrics in history] for key in ("loss", "num_fg_per_gt"))
    print(json.dumps({"loss": losses, "num_fg": num_fg, "norms": norms}))
