"""The training step on eight simulated devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import toy
from yolox_jax.augment.colour import shift_content
from yolox_jax.errors import UserError
from yolox_jax.mesh import AXIS, check_batch_size, make_mesh, place, shard_batch
from yolox_jax.training import parallel
from yolox_jax.training.step import augment, train_step

_STEP = functools.partial(train_step, model=toy.MODEL, optimizer=toy.OPTIMIZER, config=toy.step_config())


def _run(kind: str, num_steps: int = 3):
    mesh = make_mesh(8)
    step = parallel.map_step(_STEP, mesh, kind)
    state, history = place(toy.create_state(), mesh), []
    for number in range(num_steps):
        state, metrics = step(state, shard_batch(toy.random_batch(number), mesh))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def _assert_close(ours, theirs, rtol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), ours, theirs)


@pytest.fixture(scope="module")
def by_shard_map():
    return _run("shard_map")


def test_there_are_eight_devices():
    assert jax.device_count() == 8


def test_shard_map_and_pmap_give_the_same_numbers(by_shard_map):
    _assert_close(by_shard_map, _run("pmap"), rtol=1e-6)


def test_eight_devices_with_two_images_each_equal_one_device_with_all_shards(by_shard_map):
    """vmap over the named axis computes the same on one device: statistics per shard, sums over all shards."""

    @jax.jit
    def on_one_device(state, batch):
        shards = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), batch)
        return jax.vmap(_STEP, in_axes=(None, 0), out_axes=0, axis_name=AXIS)(state, shards)

    state, history = toy.create_state(), []
    for number in range(3):
        states, metrics = on_one_device(state, toy.random_batch(number))
        first = jax.tree.map(lambda x: x[0], states)
        _assert_close(jax.tree.map(lambda x: x[7], states), first)  # replicas agree
        state = first
        history.append(jax.tree.map(lambda x: x[0], metrics))
    _assert_close(by_shard_map, jax.device_get((state, history)))


@pytest.mark.parametrize("kind", ["shard_map", "pmap"])
def test_the_state_is_donated_and_stays_on_the_devices(kind):
    mesh = make_mesh(8)
    step = parallel.map_step(_STEP, mesh, kind)
    before = place(toy.create_state(), mesh)
    batch = shard_batch(toy.random_batch(0), mesh)
    with jax.transfer_guard_device_to_host("disallow_explicit"):
        between, _ = step(before, batch)
        after, metrics = step(between, batch)
        jax.block_until_ready(after)
    donated = [leaf.is_deleted() for leaf in jax.tree.leaves(between)]
    assert all(donated)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(after))
    assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves((after, metrics)))


def test_augmentation_on_the_devices_does_not_depend_on_their_number():
    rng = np.random.default_rng(0)
    shifts = rng.integers(-20, 20, (16, 3)).astype(np.float32)
    contents = rng.integers(toy.SIZE // 2, toy.SIZE, (16, 2)).astype(np.int32)
    batch = toy.random_batch(0).replace(hsv_shift=shifts, content_hw=contents)

    def images(num_devices: int):
        mesh = make_mesh(num_devices)
        mapped = jax.shard_map(
            lambda b: augment(b, None)[0],
            mesh=mesh,
            in_specs=jax.sharding.PartitionSpec(AXIS),
            out_specs=jax.sharding.PartitionSpec(AXIS),
            check_vma=False,
        )
        return np.asarray(jax.jit(mapped)(batch))

    one = images(1)
    np.testing.assert_array_equal(one, images(8))
    for image, shifted, content, shift in zip(batch.images, one, contents, shifts, strict=True):
        np.testing.assert_array_equal(shifted, shift_content(image, shift, content))


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="config.parallel.kind is 'ddp': choose one of shard_map, pmap"):
        parallel.map_step(_STEP, make_mesh(1), "ddp")


def test_pmap_with_a_sharded_state_is_refused():
    mesh = make_mesh(8)
    specs = parallel.state_specs(toy.create_state(), mesh, shard_state=True)
    with pytest.raises(UserError, match="shard_state is true: choose config.parallel.kind=shard_map"):
        parallel.map_step(_STEP, mesh, "pmap", specs)


def test_a_batch_that_the_devices_cannot_share_evenly_is_refused_with_both_numbers():
    with pytest.raises(UserError, match=r"config.batch_size is 12, which 8 device\(s\) cannot share evenly"):
        check_batch_size("batch_size", 12, make_mesh(8))


def test_each_device_holds_its_own_rows_of_a_batch():
    mesh = make_mesh(8)
    images = shard_batch(toy.random_batch(0), mesh).images
    for i, shard in enumerate(images.addressable_shards):
        np.testing.assert_array_equal(shard.data, toy.random_batch(0).images[2 * i : 2 * i + 2])
    assert jnp.issubdtype(images.dtype, jnp.uint8)
