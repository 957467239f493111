"""Trains several runs at once, each on its own group of the devices: a second mesh axis, "run", before "data".

What belongs to the runs is joined along the first axis of each array, so that each device holds exactly what it holds
for a run alone, on as many devices as a group has. The program of a device is then that of a run alone, but for the
devices with which it exchanges sums. A scalar has no axis: each device has that of its own run, which JAX is not told.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax.errors import UserError
from yolox_jax.mesh import AXIS, RUN_AXIS, WHOLE, place, shard_batch, spec_for_each
from yolox_jax.training.parallel import StepFunction


def check_groups(num_runs: int, num_devices: int) -> None:
    """Raises a UserError unless the devices can be divided into that many equal groups, all in this process."""
    if num_runs < 1:
        raise UserError(f"config.num_runs is {num_runs}", "give 1 or more")
    if num_devices % num_runs:
        raise UserError(
            f"config.num_runs is {num_runs}, but {num_devices} device(s) cannot be divided into as many equal groups",
            f"give a divisor of {num_devices}, or start the runs one after another",
        )
    if num_runs > 1 and jax.process_count() > 1:
        raise UserError(
            f"config.num_runs is {num_runs}, but there are {jax.process_count()} processes",
            "train several runs in one process, or each in a job of its own",
        )


def meshes(num_runs: int) -> tuple[Mesh, list[Mesh]]:
    """Returns the mesh of all runs, over "run" and "data", and that of each, over "data"."""
    grid = np.array(jax.devices()).reshape(num_runs, -1)
    return Mesh(grid, (RUN_AXIS, AXIS)), [Mesh(group, (AXIS,)) for group in grid]


def map_step(step: StepFunction, mesh: Mesh, state: Any, state_specs: Any = WHOLE) -> StepFunction:
    """Maps `step`, for one device, over all runs, as `parallel.map_step` over one. The joined state is donated.

    Args:
      step: with its collectives over the axis "data", which are then those of one run.
      mesh: the mesh of all runs.
      state: of one run, or its shapes.
      state_specs: of one run's state on its own mesh (`parallel.state_specs`).
    """
    specs = _joined_specs(state, state_specs)
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(specs, P(mesh.axis_names)), out_specs=(specs, WHOLE), check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0)


def join(trees: Sequence[Any], mesh: Mesh, specs: Any = WHOLE) -> Any:
    """Joins a tree of arrays of each run on the mesh of all runs; `specs` are those of one on its own mesh.

    On the mesh of a single run, its arrays, which each process holds in full, are placed as they are.
    """
    if RUN_AXIS not in mesh.axis_names:
        return place(trees[0], mesh, specs)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), _joined_specs(trees[0], specs))

    def joined(spec: P, sharding: NamedSharding, *leaves: Any) -> jax.Array:
        parts = []
        for leaf, devices in zip(leaves, mesh.devices, strict=True):
            whole = np.asarray(leaf)
            indices = NamedSharding(Mesh(devices, (AXIS,)), spec).addressable_devices_indices_map(whole.shape)
            parts += [jax.device_put(whole[index], device) for device, index in indices.items()]
        shape = joined_shape(np.shape(leaves[0]), len(leaves))
        return jax.make_array_from_single_device_arrays(shape, sharding, parts)

    return jax.tree.map(joined, spec_for_each(trees[0], specs), shardings, *trees)


def join_batches(batches: Sequence[Any], mesh: Mesh) -> Any:
    """Joins this process's rows of the batch of each run on the mesh of all runs, or shards those of a single run."""
    return join(batches, mesh, P(AXIS)) if RUN_AXIS in mesh.axis_names else shard_batch(batches[0], mesh)


def joined_shape(shape: tuple[int, ...], num_runs: int) -> tuple[int, ...]:
    """Returns the shape that arrays of this shape have together."""
    return (num_runs * shape[0], *shape[1:]) if shape else shape


def take(joint: Any, mesh: Mesh, own: Mesh) -> Any:
    """Returns one run's arrays, on its own mesh: the parts of those of all runs, which end when these are donated."""
    if RUN_AXIS not in mesh.axis_names:
        return joint
    devices = set(own.devices.flat)

    def part(array: jax.Array) -> jax.Array:
        assert isinstance(array.sharding, NamedSharding)
        parts = [shard.data for shard in array.addressable_shards if shard.device in devices]
        shape, spec = array.shape, array.sharding.spec
        if shape:
            first, *rest = tuple(spec)
            shape = (shape[0] // mesh.shape[RUN_AXIS], *shape[1:])
            spec = P(AXIS if isinstance(first, tuple) and AXIS in first else None, *rest)
        return jax.make_array_from_single_device_arrays(shape, NamedSharding(own, spec), parts)

    return jax.tree.map(part, joint)


def _joined_specs(tree: Any, specs: Any) -> Any:
    def joined(array: Any, spec: P) -> P:
        if not np.shape(array):
            return WHOLE
        first, *rest = tuple(spec) or (None,)
        return P(RUN_AXIS if first is None else (RUN_AXIS, first), *rest)

    return jax.tree.map(joined, tree, spec_for_each(tree, specs))
