"""Maps a step written for one device over all devices, and decides which device holds which arrays of the state."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax import compiler_options
from yolox_jax.compiler_options import CpuKernels
from yolox_jax.errors import UserError
from yolox_jax.mesh import AXIS, WHOLE, platform_of, shapes_of
from yolox_jax.training import zero
from yolox_jax.training.state import TrainState

StepFunction = Callable[[Any, Any], tuple[Any, Any]]


def map_step(step: StepFunction, mesh: Mesh, kind: str = "shard_map", state_specs: Any = WHOLE) -> StepFunction:
    """Maps `step(state, batch) -> (state, metrics)` over the mesh. The state is donated, the batch sharded.

    Args:
      step: for one device, with its collectives over the axis "data".
      mesh: from `make_mesh`.
      kind: "shard_map" or "pmap" (jax.pmap: one process and a replicated state only).
      state_specs: from `state_specs`; by default the state is replicated.
    Raises:
      UserError: the kind is unknown, or is pmap with several processes or a sharded state.
    """
    if kind == "shard_map":
        return _by_shard_map(step, mesh, state_specs)
    if kind != "pmap":
        raise UserError(f"config.parallel.kind is {kind!r}", "choose one of shard_map, pmap")
    if state_specs != WHOLE:
        raise UserError(
            "config.parallel.kind is 'pmap', but shard_state is true", "choose config.parallel.kind=shard_map"
        )
    if jax.process_count() > 1:
        raise UserError(
            f"config.parallel.kind is 'pmap', but there are {jax.process_count()} processes",
            "choose config.parallel.kind=shard_map",
        )
    return _by_pmap(step, mesh)


def compile_step(
    step: StepFunction, state: TrainState, batch: Any, mesh: Mesh, cpu_kernels: CpuKernels = "xla"
) -> StepFunction:
    """Compiles a mapped step for a state on the mesh and a batch of this process's rows.

    `cpu_kernels` is that of the step's network. A step mapped by pmap is returned as it is; it compiles at its first
    call.
    """
    return trace_step(step, state, batch, mesh, cpu_kernels)()


def trace_step(
    step: StepFunction, state: TrainState, batch: Any, mesh: Mesh, cpu_kernels: CpuKernels
) -> Callable[[], StepFunction]:
    """The first part of `compile_step`, which holds Python up. Returns the second, which does not."""
    if not hasattr(step, "lower"):
        return lambda: step
    sharded = NamedSharding(mesh, P(mesh.axis_names))
    batch_shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((jax.process_count() * len(x), *x.shape[1:]), x.dtype, sharding=sharded), batch
    )
    return functools.partial(compile_lowered, step.lower(shapes_of(state), batch_shapes), mesh, cpu_kernels)


def compile_lowered(lowered: jax.stages.Lowered, mesh: Mesh, cpu_kernels: CpuKernels) -> Any:
    """Compiles a training step, or a part of one, that was lowered for the mesh and for such kernels on a CPU."""
    options = compiler_options.for_training_step(platform_of(mesh), cpu_kernels)
    with compiler_options.uncached(cpu_kernels):
        return lowered.compile(compiler_options=options)


def _by_shard_map(step: StepFunction, mesh: Mesh, state_specs: Any) -> StepFunction:
    # check_vma=False: the step sums the gradients itself; shard_map's transpose would sum them once more.
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
    """The partition specs of a state: WHOLE, or a tree that shards optimizer state and EMA weights (`shard_state`)."""
    if not shard_state:
        return WHOLE

    def sharded(tree: Any) -> Any:
        return jax.tree.map(lambda x: zero.spec_of(x.shape, mesh.size, AXIS), tree)

    whole = jax.tree.map(lambda _: WHOLE, state)
    return whole.replace(ema=sharded(state.ema), opt_state=sharded(state.opt_state))
