"""The mesh of devices over the one axis "data": makes it, and moves arrays onto it and off it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"  # the devices that share a global batch
WHOLE = P()  # replicated on every device


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh of all devices, or of the first `num_devices`, over the one axis "data"."""
    devices = jax.devices()[:num_devices]
    return Mesh(np.array(devices), (AXIS,))


def place(tree: Any, mesh: Mesh, specs: Any = WHOLE) -> Any:
    """Puts a pytree that every process has in full on the mesh by `specs`: replicated by default."""
    if isinstance(specs, P):
        specs = jax.tree.map(lambda _: specs, tree)

    def put(x: Any, spec: P) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda index: x[index])

    return jax.tree.map(put, tree, specs)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Makes global arrays, sharded over the mesh along the first axis, from this process's rows of a batch."""
    sharded = NamedSharding(mesh, P(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharded, x), batch)


def replicate(arrays: Any, mesh: Mesh) -> Any:
    """Replicates a pytree that lies on the mesh, sharded or not, on every device."""
    if all(leaf.is_fully_replicated for leaf in jax.tree.leaves(arrays)):
        return arrays
    return jax.jit(_identity, out_shardings=NamedSharding(mesh, WHOLE))(arrays)


def _identity(arrays: Any) -> Any:  # one function object, so that jit compiles it once
    return arrays


def check_batch_size(field: str, global_batch: int, mesh: Mesh, num_parts: int = 1) -> None:
    """Raises ValueError if the devices cannot share the batch evenly; `field` is the config's name for it."""
    if num_parts < 1:
        raise ValueError(f"config.accumulate_steps is {num_parts}: choose 1 or more")
    unit = mesh.size * num_parts
    if global_batch < 1 or global_batch % unit:
        parts = "" if num_parts == 1 else f" in {num_parts} parts (config.accumulate_steps)"
        raise ValueError(
            f"config.{field} is {global_batch}: the {mesh.size} devices cannot share it evenly{parts}; "
            f"choose a multiple of {unit}"
        )
