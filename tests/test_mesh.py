"""Arrays move onto the mesh and off it unchanged, and a batch that its devices cannot share evenly is refused."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from yolox_jax.errors import UserError
from yolox_jax.mesh import AXIS, check_batch_size, make_mesh, place, platform_of, replicate, shard_batch


def _tree():
    rng = np.random.default_rng(0)
    return {"kernel": rng.normal(size=(16, 3)).astype(np.float32), "step": np.int32(7)}


def test_the_mesh_has_all_devices_or_the_first_ones_over_one_axis():
    assert make_mesh().shape == {AXIS: 8}
    assert list(make_mesh(3).devices) == jax.devices()[:3]


def test_the_platform_is_that_of_its_devices():
    assert platform_of(make_mesh(2)) == "cpu"


def test_place_replicates_by_default_and_slices_by_a_spec():
    tree, mesh = _tree(), make_mesh()
    placed = place(tree, mesh)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(placed))
    sliced = place(tree, mesh, {"kernel": P(AXIS), "step": P()})
    assert [shard.data.shape for shard in sliced["kernel"].addressable_shards] == [(2, 3)] * 8
    for found in (placed, sliced):
        jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_shard_batch_gives_each_device_consecutive_rows():
    images = np.arange(16 * 2).reshape(16, 2)
    sharded = shard_batch({"images": images}, make_mesh())["images"]
    for number, shard in enumerate(sharded.addressable_shards):
        np.testing.assert_array_equal(shard.data, images[2 * number : 2 * number + 2])


def test_replicate_undoes_any_sharding_and_keeps_arrays_that_are_replicated_already():
    tree, mesh = _tree(), make_mesh()
    sliced = place(tree, mesh, {"kernel": P(AXIS), "step": P()})
    whole = replicate(sliced, mesh)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(whole))
    jax.tree.map(np.testing.assert_array_equal, whole, tree)
    assert replicate(whole, mesh) is whole


@pytest.mark.parametrize(
    ("batch", "num_parts", "message"),
    [
        (12, 1, r"config\.batch_size is 12, which 8 device\(s\) cannot share evenly: choose a multiple of 8"),
        (0, 1, r"config\.batch_size is 0, .*: choose a multiple of 8"),
        (-8, 1, r"config\.batch_size is -8, .*: choose a multiple of 8"),
        (8, 2, r"config\.batch_size is 8, .* in 2 parts \(config\.accumulate_steps\): choose a multiple of 16"),
        (8, 0, r"config\.accumulate_steps is 0: give 1 or more"),
    ],
)
def test_a_batch_that_the_devices_cannot_share_evenly_is_an_error_that_names_the_field(batch, num_parts, message):
    with pytest.raises(UserError, match=message):
        check_batch_size("batch_size", batch, make_mesh(), num_parts)
    check_batch_size("batch_size", 16, make_mesh(), 2)
