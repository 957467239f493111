"""Compiler options are for a CPU alone, and XLA takes them."""

import jax
import jax.numpy as jnp
import pytest

from yolox_jax import compiler_options

_KINDS = [compiler_options.for_training_step, compiler_options.for_one_call]


@pytest.mark.parametrize("options", _KINDS)
def test_only_a_cpu_has_options_and_a_program_compiles_with_them(options):
    assert options("tpu") == options("gpu") == {}
    assert options("cpu")
    doubled = jax.jit(lambda x: x + x).lower(jnp.ones(3)).compile(compiler_options=options("cpu"))
    assert doubled(jnp.ones(3)).tolist() == [2, 2, 2]
