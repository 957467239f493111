"""A step compiled in halves computes what the whole step computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import toy
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.training import halves, parallel
from yolox_jax.training.halves import Halves
from yolox_jax.training.schedule import Schedule
from yolox_jax.training.step import train_step


@pytest.mark.slow
@pytest.mark.parametrize(("num_devices", "dtype"), [(1, jnp.float32), (8, jnp.float32), (1, jnp.float16)])
def test_both_halves_in_turn_are_the_whole_step_and_free_the_old_state(num_devices, dtype):
    """On eight devices, optimizer state and EMA weights are sharded, and gradients pass between the halves so.

    In float16 the first step overflows, so that the halves agree on the scale and on the step that is skipped.
    """
    mesh, sharded, model = make_mesh(num_devices), num_devices > 1, toy.ToyDetector(dtype=dtype)
    schedule = Schedule(0.05, 1, 2, warmup_epochs=0, no_aug_epochs=1, min_lr_ratio=0.05)  # L1 from the second step on
    config = toy.step_config(schedule, shard_state=sharded, clip_grad_norm=5.0)
    begin = toy.create_state(dtype)
    if begin.loss_scale is not None:
        begin = begin.replace(loss_scale=begin.loss_scale.replace(value=jnp.float32(2**24)))
    specs = parallel.state_specs(begin, mesh, sharded)
    whole = parallel.map_step(
        functools.partial(train_step, model=model, optimizer=toy.OPTIMIZER, config=config), mesh, state_specs=specs
    )
    by_halves = Halves(model, toy.OPTIMIZER, config, mesh, specs)
    placed, batch = place(begin, mesh, specs), toy.random_batch(0)
    joined = by_halves.joined(by_halves.trace_gradients(placed, batch, None)(), by_halves.trace_update(placed)())
    assert joined.memory_analysis().temp_size_in_bytes > 0

    def run(step):
        now, history = place(begin, mesh, specs), []
        for number in range(2):
            before = now
            now, metrics = step(now, shard_batch(toy.random_batch(number), mesh))
            history.append(metrics)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
        return jax.device_get((now, history))

    ours, theirs = run(joined), run(whole)
    assert theirs[1][0]["loss_l1"] == 0 < theirs[1][1]["loss_l1"]
    if dtype == jnp.float16:
        assert ours[0].loss_scale.value < 2**24
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), ours, theirs)


def test_the_gradients_of_runs_of_any_length_are_one_program(monkeypatch):
    monkeypatch.setattr(Halves, "_compile", lambda self, lowered: lowered.as_text())
    mesh = make_mesh(1)
    begin, batch = place(toy.create_state(), mesh), toy.random_batch(0, batch_size=1)

    def text(epochs):
        config = toy.step_config(Schedule(0.05, 4, epochs, warmup_epochs=0, no_aug_epochs=1, min_lr_ratio=0.05))
        return Halves(toy.MODEL, toy.OPTIMIZER, config, mesh).trace_gradients(begin, batch, None)()

    assert text(5) == text(50)


def test_a_step_is_compiled_in_halves_on_a_cpu_in_one_process_unless_pmap_compiles_it(monkeypatch):
    mesh = make_mesh(1)
    assert halves.suits(mesh) and not halves.suits(mesh, "pmap")
    with monkeypatch.context() as several:
        several.setattr(jax, "process_count", lambda: 2)
        assert not halves.suits(mesh)
    monkeypatch.setattr(halves, "platform_of", lambda mesh: "gpu")
    assert not halves.suits(mesh)
