"""How one step function for one device runs on all of them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax.training.step import AXIS

StepFunction = Callable[[Any, Any], tuple[Any, Any]]


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh of all devices, or of the first `num_devices`, over the one axis "data"."""
    devices = jax.devices()[:num_devices]
    return Mesh(np.array(devices), (AXIS,))


def map_step(step: StepFunction, mesh: Mesh, kind: str = "shard_map") -> StepFunction:
    """Maps `step(state, batch) -> (state, metrics)` over the mesh: state replicated and donated, batch divided.

    Args:
      step: for one device, its collectives over the axis "data".
      mesh: from `make_mesh`.
      kind: "shard_map", or "pmap" for the same by jax.pmap.
    Raises:
      ValueError: an unknown kind.
    """
    kinds = {"shard_map": _by_shard_map, "pmap": _by_pmap}
    if kind not in kinds:
        raise ValueError(f"config.parallel.kind is {kind!r}: choose one of {', '.join(kinds)}")
    return kinds[kind](step, mesh)


def _by_shard_map(step: StepFunction, mesh: Mesh) -> StepFunction:
    # check_vma=False: gradients are summed by the step itself, not by shard_map's transposition.
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=(P(), P()), check_vma=False)
    return jax.jit(mapped, donate_argnums=0)


def _by_pmap(step: StepFunction, mesh: Mesh) -> StepFunction:
    mapped = jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0, devices=list(mesh.devices.flat))
    num_local = len(mesh.local_devices)

    def step_on_all(state: Any, batch: Any) -> tuple[Any, Any]:
        return mapped(state, jax.tree.map(lambda x: x.reshape(num_local, -1, *x.shape[1:]), batch))

    return step_on_all


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The pytree on every device of the mesh, whole."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's rows of a batch as global arrays, divided over the mesh along the first axis."""
    sharding = NamedSharding(mesh, P(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def check_batch_size(field: str, global_batch: int, mesh: Mesh) -> None:
    """Raises ValueError where the devices cannot share the batch evenly; `field` is the config's name for it."""
    if global_batch < 1 or global_batch % mesh.size:
        raise ValueError(
            f"config.{field} is {global_batch}: the {mesh.size} devices cannot share it evenly; "
            f"choose a multiple of {mesh.size}"
        )
