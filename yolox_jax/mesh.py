"""Makes the mesh of all devices along one axis, "data", and places arrays on it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax.errors import UserError

AXIS = "data"  # a global batch is split over the devices along it
RUN_AXIS = "run"  # each run of several has its own devices along it (training/groups.py)
WHOLE = P()  # replicated on every device


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Makes the mesh of all devices, or of the first `num_devices`."""
    devices = jax.devices()[:num_devices]
    return Mesh(np.array(devices), (AXIS,))


def make_own_mesh() -> Mesh:
    """Makes the mesh of one device, which is this process's own."""
    return Mesh(np.array(jax.local_devices()[:1]), (AXIS,))


def platform_of(mesh: Mesh) -> str:
    """ "cpu", "gpu" or "tpu": the platform of the devices of a mesh, which need not be this process's default one."""
    return mesh.devices.flat[0].platform


def place(tree: Any, mesh: Mesh, specs: Any = WHOLE) -> Any:
    """Places a pytree that every process holds in full on the mesh: replicated, or sharded by `specs`."""

    def put(x: Any, spec: P) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda index: x[index])

    return jax.tree.map(put, tree, spec_for_each(tree, specs))


def spec_for_each(tree: Any, specs: Any) -> Any:
    """Returns the spec of each array of a pytree; one spec is that of all."""
    return jax.tree.map(lambda _: specs, tree) if isinstance(specs, P) else specs


def shapes_of(tree: Any) -> Any:
    """Returns the shapes of a pytree of arrays on a mesh, with dtypes and shardings. They do not keep the arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def placed_shapes(tree: Any, mesh: Mesh, specs: Any = WHOLE) -> Any:
    """Returns what `shapes_of` would of a pytree of arrays or shapes, once it is placed as `place` does."""

    def shape(x: Any, spec: P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(shape, tree, spec_for_each(tree, specs))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Makes global arrays [B, ...], sharded along their first axis, from this process's rows of a batch."""
    sharded = NamedSharding(mesh, P(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharded, x), batch)


def replicate(arrays: Any, mesh: Mesh) -> Any:
    """Replicates a pytree of arrays to every device of the mesh; returns it as it is if it is replicated already."""
    if all(leaf.is_fully_replicated for leaf in jax.tree.leaves(arrays)):
        return arrays
    return jax.jit(_identity, out_shardings=NamedSharding(mesh, WHOLE))(arrays)


def _identity(arrays: Any) -> Any:  # at module level, since jit would compile a new lambda every time
    return arrays


def check_batch_size(field: str, global_batch: int, mesh: Mesh, num_parts: int = 1) -> None:
    """Checks that a global batch divides evenly over the devices, and each device's share into `num_parts` parts.

    Raises:
      UserError: it does not; names `field`, the config's field of the batch size.
    """
    if num_parts < 1:
        raise UserError(f"config.accumulate_steps is {num_parts}", "give 1 or more")
    unit = mesh.size * num_parts
    if global_batch < 1 or global_batch % unit:
        parts = "" if num_parts == 1 else f" in {num_parts} parts (config.accumulate_steps)"
        raise UserError(
            f"config.{field} is {global_batch}, which {mesh.size} device(s) cannot share evenly{parts}",
            f"choose a multiple of {unit}",
        )
