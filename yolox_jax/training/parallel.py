"""How one step function for one device runs on all of them, and where its arrays lie."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax.training import sharding
from yolox_jax.training.state import TrainState
from yolox_jax.training.step import AXIS

StepFunction = Callable[[Any, Any], tuple[Any, Any]]

WHOLE = P()  # on every device

# LLVM's third level makes nano's step slower on a CPU than its second: 684 ms against 609, 720 against 585, 644 against 552.
_ON_A_CPU = {"xla_backend_optimization_level": "2"}


def make_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh of all devices, or of the first `num_devices`, over the one axis "data"."""
    devices = jax.devices()[:num_devices]
    return Mesh(np.array(devices), (AXIS,))


def map_step(step: StepFunction, mesh: Mesh, kind: str = "shard_map", state_specs: Any = WHOLE) -> StepFunction:
    """Maps `step(state, batch) -> (state, metrics)` over the mesh: state donated, batch divided.

    Args:
      step: for one device, its collectives over the axis "data".
      mesh: from `make_mesh`.
      kind: "shard_map", or "pmap" for the same by jax.pmap, of one process and an undivided state.
      state_specs: from `state_specs`; all on every device by default.
    Raises:
      ValueError: an unknown kind, or one that cannot do it.
    """
    if kind == "shard_map":
        return _by_shard_map(step, mesh, state_specs)
    if kind != "pmap":
        raise ValueError(f"config.parallel.kind is {kind!r}: choose one of shard_map, pmap")
    if state_specs != WHOLE or jax.process_count() > 1:
        raise ValueError("config.parallel.kind pmap is for one process and shard_state=false: choose shard_map")
    return _by_pmap(step, mesh)


def compile_step(step: StepFunction, state: TrainState, batch: Any, mesh: Mesh) -> StepFunction:
    """The compiled program of a mapped step for a state that lies on the mesh and a batch of this process's rows.

    By pmap, the step itself, which compiles when it is first called.
    """
    if not hasattr(step, "lower"):
        return step
    divided = NamedSharding(mesh, P(AXIS))
    of_state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    of_batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((jax.process_count() * len(x), *x.shape[1:]), x.dtype, sharding=divided), batch
    )
    return step.lower(of_state, of_batch).compile(compiler_options=compiler_options(mesh))


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """What XLA is asked for when it compiles a training step."""
    return _ON_A_CPU if mesh.devices.flat[0].platform == "cpu" else {}


def _by_shard_map(step: StepFunction, mesh: Mesh, state_specs: Any) -> StepFunction:
    # check_vma=False: gradients are summed by the step itself, not by shard_map's transposition.
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(state_specs, P(AXIS)), out_specs=(state_specs, WHOLE), check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0)


def _by_pmap(step: StepFunction, mesh: Mesh) -> StepFunction:
    mapped = jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0, devices=list(mesh.devices.flat))
    num_local = len(mesh.local_devices)

    def step_on_all(state: Any, batch: Any) -> tuple[Any, Any]:
        return mapped(state, jax.tree.map(lambda x: x.reshape(num_local, -1, *x.shape[1:]), batch))

    return step_on_all


def state_specs(state: TrainState, mesh: Mesh, shard_state: bool) -> Any:
    """Where each array of a state lies: WHOLE or, with `shard_state`, a tree by which the optimiser's state and the
    average are divided."""
    if not shard_state:
        return WHOLE

    def divided(tree: Any) -> Any:
        return jax.tree.map(lambda x: sharding.spec_of(x.shape, mesh.size, AXIS), tree)

    step, params, batch_stats = jax.tree.map(lambda _: WHOLE, (state.step, state.params, state.batch_stats))
    return TrainState(step, params, batch_stats, divided(state.ema), divided(state.opt_state))


def place(tree: Any, mesh: Mesh, specs: Any = WHOLE) -> Any:
    """A pytree that every process has whole, on the mesh by `specs`: whole on every device by default."""
    if isinstance(specs, P):
        specs = jax.tree.map(lambda _: specs, tree)

    def put(x: Any, spec: P) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda index: x[index])

    return jax.tree.map(put, tree, specs)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's rows of a batch as global arrays, divided over the mesh along the first axis."""
    divided = NamedSharding(mesh, P(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(divided, x), batch)


def check_batch_size(field: str, global_batch: int, mesh: Mesh, num_parts: int = 1) -> None:
    """Raises ValueError where the devices cannot share the batch evenly; `field` is the config's name for it."""
    if num_parts < 1:
        raise ValueError(f"config.accumulate_steps is {num_parts}: choose 1 or more")
    unit = mesh.size * num_parts
    if global_batch < 1 or global_batch % unit:
        parts = "" if num_parts == 1 else f" in {num_parts} parts (config.accumulate_steps)"
        raise ValueError(
            f"config.{field} is {global_batch}: the {mesh.size} devices cannot share it evenly{parts}; "
            f"choose a multiple of {unit}"
        )
