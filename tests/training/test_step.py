"""The training step: the reference's trajectory, broken batches, accumulation and frozen variables."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from tests import programs
from tests.material import GOLDEN, ROOT, golden
from tests.onednn import needs_onednn
from tests.training import toy, trajectory
from yolox_jax.errors import UserError
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.training import parallel
from yolox_jax.training.halves import Halves
from yolox_jax.training.step import StepConfig, augment, train_step


@pytest.mark.slow
@pytest.mark.parametrize("cpu_kernels", ["xla", pytest.param("onednn", marks=needs_onednn)])
def test_the_first_steps_in_float32_follow_the_reference(cpu_kernels):
    """Three steps only: rounding grows a hundredfold in the first update, and two runs of the reference, with and
    without MKL-DNN, differ by 4e-4 at the third step. All eight are compared in float64, below."""
    history, _ = trajectory.run(num_steps=3, cpu_kernels=cpu_kernels)
    arrays = golden("trajectory")
    losses = [m["loss"] for m in history]
    np.testing.assert_allclose(losses[:2], arrays["loss"][:2], rtol=1e-5)
    np.testing.assert_allclose(losses[2], arrays["loss"][2], rtol=1e-3)
    np.testing.assert_allclose([m["num_fg_per_gt"] for m in history], arrays["num_fg"][:3], rtol=1e-6)
    np.testing.assert_allclose([m["learning_rate"] for m in history], arrays["lr"][:3], rtol=1e-6)


@pytest.mark.slow
def test_eight_steps_in_float64_follow_the_reference():
    finished = programs.run("-m tests.training.trajectory", [], ROOT, 0)
    ours = json.loads(finished.stdout)
    reference = json.loads((GOLDEN / "trajectory_float64.json").read_text())
    np.testing.assert_allclose(ours["loss"], reference["loss"], rtol=1e-4)
    np.testing.assert_allclose(ours["loss"][:5], reference["loss"][:5], rtol=1e-8)
    np.testing.assert_allclose(ours["num_fg"], reference["num_fg"], rtol=1e-6)
    errors = {name: abs(ours["norms"][name] / value - 1) for name, value in reference.items() if "norm/" in name}
    assert len(errors) > 1000
    # Rounding grows by ten orders of magnitude; all but a few small biases are still within 1e-4.
    assert sorted(errors.values())[int(0.99 * len(errors))] < 1e-4
    assert max(errors.values()) < 3e-4


@pytest.fixture(scope="module", params=["whole", "in halves"])
def toy_step(request):
    mesh = make_mesh(1)
    config = toy.step_config()
    if request.param == "whole":
        step = functools.partial(train_step, model=toy.MODEL, optimizer=toy.OPTIMIZER, config=config)
        return parallel.map_step(step, mesh), mesh
    halves, state = Halves(toy.MODEL, toy.OPTIMIZER, config, mesh), place(toy.create_state(), mesh)
    batch = toy.random_batch(0)
    batch = batch.replace(images=batch.images.astype(np.float32))
    return halves.joined(halves.trace_gradients(state, batch, None)(), halves.trace_update(state)()), mesh


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_whose_loss_is_not_finite_changes_nothing_but_its_number(toy_step, bad):
    step, mesh = toy_step
    images = toy.random_batch(0).images.astype(np.float32)
    good = toy.random_batch(0).replace(images=images)
    broken = toy.random_batch(1).replace(images=np.where(np.arange(16)[:, None, None, None] == 3, bad, images))
    state, _ = step(place(toy.create_state(), mesh), shard_batch(good, mesh))
    before = jax.device_get(state)
    state, metrics = step(state, shard_batch(broken, mesh))
    after = jax.device_get(state)
    assert metrics["skipped"] == 1
    assert after.step == before.step + 1
    jax.tree.map(np.testing.assert_array_equal, after.replace(step=before.step), before)
    state, metrics = step(state, shard_batch(good, mesh))
    assert metrics["skipped"] == 0
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.slow
def test_training_at_another_size_scales_the_boxes_with_the_images():
    mesh = make_mesh(1)
    config = toy.step_config()
    losses = {}
    batch = toy.random_batch(0)
    images, boxes = augment(batch, (128, 96))
    assert images.shape == (16, 128, 96, 3)
    np.testing.assert_allclose(boxes, batch.gt_boxes * np.array([1.5, 2, 1.5, 2]), rtol=1e-6)
    for size in (64, 128):
        step = functools.partial(
            train_step, model=toy.MODEL, optimizer=toy.OPTIMIZER, config=config, size_hw=(size, size)
        )
        _, metrics = parallel.map_step(step, mesh)(
            place(toy.create_state(), mesh), shard_batch(toy.random_batch(0), mesh)
        )
        losses[size] = jax.device_get(metrics)
    assert losses[64]["num_fg_per_gt"] != losses[128]["num_fg_per_gt"]
    assert np.isfinite(losses[128]["loss"])


def test_the_loss_of_one_batch_falls_in_training(toy_step):
    step, mesh = toy_step
    batch = toy.random_batch(0).replace(images=toy.random_batch(0).images.astype(np.float32))
    state, losses = place(toy.create_state(), mesh), []
    for _ in range(20):
        state, metrics = step(state, shard_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]


def _step_once(config: StepConfig, num_devices: int = 1):
    """State and metrics after one step of the toy in the no-aug epochs, where the L1 loss is on."""
    mesh = make_mesh(num_devices)
    step = functools.partial(train_step, model=toy.MODEL, optimizer=toy.OPTIMIZER, config=config)
    begin = toy.create_state().replace(step=jnp.asarray(toy.SCHEDULE.no_aug_step))
    state, metrics = parallel.map_step(step, mesh)(place(begin, mesh), shard_batch(toy.random_batch(0), mesh))
    return jax.device_get(state), jax.device_get(metrics)


_FROZEN_STATISTICS = ("bn/(mean|var)$",)


@pytest.mark.slow  # test_accumulate.py has the quick one
@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_batch_in_parts_gives_the_losses_and_the_update_of_the_whole_batch(num_devices):
    """Equal to rounding if the BatchNorm statistics are frozen; otherwise BatchNorm sees one part at a time."""
    state, metrics = _step_once(toy.step_config(freeze=_FROZEN_STATISTICS), num_devices)
    in_parts = toy.step_config(freeze=_FROZEN_STATISTICS, accumulate_steps=4)
    state_in_parts, metrics_in_parts = _step_once(in_parts, num_devices)
    assert metrics.keys() == metrics_in_parts.keys() and metrics["loss_l1"] > 0
    for name, value in metrics.items():
        assert metrics_in_parts[name] == pytest.approx(value, rel=1e-6), name
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), state_in_parts, state)

    _, with_batch_norm = _step_once(toy.step_config(), num_devices)
    _, with_batch_norm_in_parts = _step_once(toy.step_config(accumulate_steps=4), num_devices)
    assert with_batch_norm_in_parts["loss"] == pytest.approx(with_batch_norm["loss"], rel=0.1)
    assert with_batch_norm_in_parts["loss"] != pytest.approx(with_batch_norm["loss"], rel=1e-6)


def test_frozen_variables_keep_every_bit_and_the_others_learn():
    before = jax.device_get(toy.create_state())
    after, metrics = _step_once(toy.step_config(freeze=("ConvBlock_0", "ConvBlock_1/bn/(mean|var)")))
    for now, then in ((after, before), (after.ema, before.ema)):
        now, then = (
            x if isinstance(x, dict) else {"params": x.params, "batch_stats": x.batch_stats} for x in (now, then)
        )
        same = jax.tree.map(lambda x, y: bool((x == y).all()), now, then)
        assert all(jax.tree.leaves(same["params"]["ConvBlock_0"]))
        assert all(jax.tree.leaves([same["batch_stats"]["ConvBlock_0"], same["batch_stats"]["ConvBlock_1"]]))
        others = [
            same["params"]["ConvBlock_1"]["conv"],
            same["params"]["ConvBlock_2"],
            same["batch_stats"]["ConvBlock_2"],
        ]
        assert not any(jax.tree.leaves(others))
    assert metrics["skipped"] == 0


def test_the_defaults_are_those_of_the_base_config():
    config, ours = base.get_config(), toy.step_config()
    assert (ours.ema_decay, ours.clip_grad_norm) == (config.ema_decay, config.clip_grad_norm)
    assert (ours.accumulate_steps, ours.freeze) == (config.accumulate_steps, config.freeze)
    assert (ours.shard_state, ours.hsv_multiplies) == (config.parallel.shard_state, config.hsv.multiplies)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ema_decay": 1.5}, "config.ema_decay is 1.5: give a number from 0 to below 1"),
        ({"accumulate_steps": 0}, "config.accumulate_steps is 0: give 1 or more"),
        ({"clip_grad_norm": 0.0}, "config.clip_grad_norm is 0.0: give a number above 0, or none"),
    ],
)
def test_a_number_out_of_range_is_refused_with_its_field(change, message):
    with pytest.raises(UserError, match=message):
        toy.step_config(**change)
