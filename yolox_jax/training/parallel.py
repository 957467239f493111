"""How one step function for one device runs on all of them, and where its arrays lie."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax.mesh import AXIS, WHOLE
from yolox_jax.training import zero
from yolox_jax.training.state import TrainState

StepFunction = Callable[[Any, Any], tuple[Any, Any]]


# LLVM's third level makes nano's step slower on a CPU than its second: 684 ms against 609, 720 against 585, 644 against 552.
_ON_A_CPU = {"xla_backend_optimization_level": "2"}


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
        return jax.tree.map(lambda x: zero.spec_of(x.shape, mesh.size, AXIS), tree)

    step, params, batch_stats = jax.tree.map(lambda _: WHOLE, (state.step, state.params, state.batch_stats))
    return TrainState(step, params, batch_stats, divided(state.ema), divided(state.opt_state))
