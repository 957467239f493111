"""The training step with oneDNN's kernels on a CPU."""

import functools

import jax
import numpy as np
import pytest

from tests.onednn import needs_onednn
from tests.training import toy
from yolox_jax import compiler_options
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.training import parallel
from yolox_jax.training.step import train_step

_NUM_STEPS = 3


def _train(cpu_kernels, mesh):
    """Compiles the step and runs it; all arrays of the state that it leaves."""
    model = toy.ToyDetector(cpu_kernels=cpu_kernels)
    step = functools.partial(train_step, model=model, optimizer=toy.OPTIMIZER, config=toy.step_config())
    state, batch = place(toy.create_state(), mesh), toy.random_batch(0)
    compiled = parallel.compile_step(parallel.map_step(step, mesh), state, batch, mesh, cpu_kernels)
    assert ("__onednn$convolution" in compiled.as_text()) == (cpu_kernels == "onednn")
    for _ in range(_NUM_STEPS):
        before = state
        state, _ = compiled(state, shard_batch(batch, mesh))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))  # donated
    return jax.tree.leaves(jax.device_get(state))


@needs_onednn
@pytest.mark.slow
def test_a_step_compiled_again_gives_the_same_bits_and_nearly_those_of_xla_and_is_not_written_to_the_cache():
    """A resumed run compiles it again: JAX cannot write it to its compilation cache, and would warn, an error here."""
    mesh = make_mesh(2)
    with jax._src.config.persistent_cache_min_compile_time_secs(0.0):
        first, again, by_xla = (_train(kernels, mesh) for kernels in ("onednn", "onednn", "xla"))
    for one, other, plain in zip(first, again, by_xla, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, plain, rtol=1e-4, atol=1e-5)


def test_only_programs_with_onednn_are_kept_from_the_cache():
    setting = jax._src.config.persistent_cache_min_compile_time_secs
    usual = setting.value
    with compiler_options.uncached("onednn"):
        assert setting.value == float("inf")
    with compiler_options.uncached("xla"):
        assert setting.value == usual
