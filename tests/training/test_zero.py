"""ZeRO-1 sharding changes neither losses nor weights, and takes less memory on each device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from tests.training import toy
from yolox_jax.mesh import AXIS, make_mesh, place, shard_batch
from yolox_jax.training import optim, parallel, state, zero
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.step import train_step

_OPTIMIZERS = {"sgd": toy.OPTIMIZER, "adamw": optim.adamw(0.05)}


def _batch(number: int):
    """Images that get brighter along the batch, so that no two devices see the same statistics."""
    batch = toy.random_batch(number)
    brightness = np.linspace(0.1, 1, len(batch.images))[:, None, None, None]
    return batch.replace(images=(batch.images * brightness).astype(np.uint8))


def _create_state(optimizer):
    return state.create(toy.create_variables(), optimizer)


def _set_up(num_devices: int, shard_state: bool, optimizer=toy.OPTIMIZER, bn_axis: str | None = None, **changes):
    """The mapped step, the mesh and the partition specs of the state."""
    mesh = make_mesh(num_devices)
    specs = parallel.state_specs(_create_state(optimizer), mesh, shard_state)
    step = functools.partial(
        train_step,
        model=toy.ToyDetector(bn_axis),
        optimizer=optimizer,
        config=toy.step_config(shard_state=shard_state, **changes),
    )
    return parallel.map_step(step, mesh, state_specs=specs), mesh, specs


def _run(num_devices: int, shard_state: bool, num_steps: int, optimizer=toy.OPTIMIZER, **changes):
    step, mesh, specs = _set_up(num_devices, shard_state, optimizer, **changes)
    now, history = place(_create_state(optimizer), mesh, specs), []
    for number in range(num_steps):
        now, metrics = step(now, shard_batch(_batch(number), mesh))
        history.append(jax.device_get(metrics))
    return now, history


def _losses(history) -> list[float]:
    return [float(metrics["loss"]) for metrics in history]


@pytest.mark.parametrize("name", ["sgd", pytest.param("adamw", marks=pytest.mark.slow)])
def test_ten_steps_with_a_sharded_state_equal_ten_with_a_replicated_one(name):
    whole, history = _run(8, False, 10, _OPTIMIZERS[name])
    sliced, own_history = _run(8, True, 10, _OPTIMIZERS[name])
    np.testing.assert_allclose(_losses(own_history), _losses(history), rtol=1e-6)
    for own, theirs in zip(own_history, history, strict=True):
        assert own.keys() == theirs.keys()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), own, theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), sliced, whole)
    kernel = sliced.ema["params"]["ConvBlock_0"]["conv"]["kernel"]
    assert kernel.sharding.spec == P(None, None, None, AXIS)
    assert kernel.addressable_shards[0].data.shape == (*kernel.shape[:3], kernel.shape[3] // 8)


@pytest.mark.slow
def test_with_a_sharded_state_gradients_are_clipped_as_optax_clips_whole_ones():
    max_norm = 0.5
    with_optax = optax.chain(optax.clip_by_global_norm(max_norm), toy.OPTIMIZER)
    theirs, their_history = _run(8, False, 2, with_optax)
    ours, history = _run(8, True, 2, clip_grad_norm=max_norm)
    for name in ("params", "ema", "batch_stats"):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
        jax.tree.map(close, getattr(ours, name), getattr(theirs, name))
    for own, other in zip(history, their_history, strict=True):
        assert own["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)  # before clipping
        assert own["grad_norm"] > 2 * max_norm


def test_each_device_holds_an_eighth_of_what_is_sharded():
    """Measured by XLA's memory analysis, for arrays so large that nothing else matters."""
    variables = {"params": {"kernel": jnp.zeros((3, 3, 64, 128))}, "batch_stats": {}}
    before = state.create(variables, toy.OPTIMIZER)
    mesh = make_mesh(8)

    def argument_bytes(shard_state: bool) -> int:
        specs = parallel.state_specs(before, mesh, shard_state)
        placed = place(before, mesh, specs)
        mapped = jax.shard_map(lambda x: x, mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=False)
        return jax.jit(mapped).lower(placed).compile().memory_analysis().argument_size_in_bytes

    kernel_bytes = 4 * 3 * 3 * 64 * 128
    whole, sliced = argument_bytes(False), argument_bytes(True)
    assert whole == pytest.approx(3 * kernel_bytes, rel=0.001)  # the weights, the EMA weights, the momentum
    assert sliced == pytest.approx((1 + 2 / 8) * kernel_bytes, rel=0.001)


def test_a_step_with_a_sharded_state_has_fewer_bytes_of_arguments_on_each_device():
    def argument_bytes(shard_state: bool) -> int:
        step, mesh, specs = _set_up(8, shard_state)
        placed = place(_create_state(toy.OPTIMIZER), mesh, specs)
        batch = shard_batch(_batch(0), mesh)
        return step.lower(placed, batch).compile().memory_analysis().argument_size_in_bytes

    before = _create_state(toy.OPTIMIZER)
    cut = [
        leaf.nbytes
        for leaf in jax.tree.leaves((before.ema, before.opt_state))
        if zero.axis_of(leaf.shape, 8) is not None
    ]
    assert argument_bytes(False) - argument_bytes(True) == sum(cut) * 7 // 8


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3, 3, 16, 24), 3), ((3, 3, 1, 16), 3), ((1, 1, 64, 4), 2), ((4,), None), ((), None), ((8,), 0)],
)
def test_arrays_are_cut_along_their_longest_even_axis(shape, axis):
    assert zero.axis_of(shape, 8) == axis
    assert zero.axis_of(shape, 1) is None


@pytest.mark.slow
def test_with_batchnorm_over_the_global_batch_the_loss_is_the_same_on_any_number_of_devices():
    losses = {n: _losses(_run(n, False, 4, bn_axis=AXIS)[1]) for n in (1, 2, 4, 8)}
    for num_devices in (2, 4, 8):
        np.testing.assert_allclose(losses[num_devices], losses[1], rtol=1e-4)
    own = _losses(_run(8, False, 1)[1])
    assert abs(own[0] - losses[1][0]) > 1e-3 * losses[1][0]  # BatchNorm per device gives another loss


_ALL_MESHES = [(1, False), (8, False), (8, True), (4, False), (4, True), (2, True)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """For each mesh, a run directory with a checkpoint that it wrote after three steps."""
    folders = {}
    for num_devices, shard_state in ((1, False), (8, False), (8, True)):
        folders[num_devices, shard_state] = folder = tmp_path_factory.mktemp("run")
        now, _ = _run(num_devices, shard_state, 3, bn_axis=AXIS)
        checkpoints = Checkpoints(folder)
        checkpoints.save(now, toy.meta(3, num_devices=num_devices))
        checkpoints.close()
        folders[num_devices, shard_state] = (folder, jax.device_get(now))
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("source", [(1, False), (8, False), (8, True)])
def test_a_checkpoint_restores_on_any_mesh_bit_for_bit_and_resumes_with_the_same_loss(written, source):
    folder, saved = written[source]
    losses = {}
    for target in _ALL_MESHES:
        step, mesh, specs = _set_up(*target, bn_axis=AXIS)
        like = place(_create_state(toy.OPTIMIZER), mesh, specs)
        checkpoints = Checkpoints(folder)
        restored, _ = checkpoints.restore_latest(like, lambda meta: None)
        checkpoints.close()
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), restored, saved)
        assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, like)
        _, metrics = step(restored, shard_batch(_batch(3), mesh))
        losses[target] = float(metrics["loss"])
    np.testing.assert_allclose(list(losses.values()), losses[1, False], rtol=1e-5)
