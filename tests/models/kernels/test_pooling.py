"""Separable maxima against XLA's reduce-window, ties included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax.models.kernels.pooling import max_pool, max_pool_plain


@pytest.mark.parametrize("num_levels", [3, 1000])  # with many ties, and with nearly none
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(
    "dtype", [jnp.float32, *(pytest.param(x, marks=pytest.mark.slow) for x in (jnp.bfloat16, jnp.float16))]
)
def test_maxima_and_their_gradients_equal_xlas_and_ties_go_to_the_first(num_levels, size, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-num_levels, num_levels, (2, 9, 11, 4)), dtype)
    expected, pull_expected = jax.vjp(functools.partial(max_pool_plain, size=size), x)
    found, pull = jax.vjp(functools.partial(max_pool, size=size), x)
    np.testing.assert_array_equal(found, expected)
    grad = jnp.asarray(rng.integers(1, 9, found.shape), dtype)  # sums of 25 are exact in bfloat16
    np.testing.assert_array_equal(pull(grad)[0], pull_expected(grad)[0])


def test_the_gradient_has_no_select_and_scatter_which_a_repeatable_program_may_not_have_on_a_gpu():
    x = jnp.ones((1, 5, 5, 1))
    for pool, has_it in ((max_pool, False), (max_pool_plain, True)):
        gradient = jax.jit(jax.grad(lambda x, pool=pool: pool(x, 5).sum())).trace(x)
        assert ("select_and_scatter" in gradient.lower(lowering_platforms=("cuda",)).as_text()) == has_it


def test_on_a_cpu_no_kernel_computes_one_pool_within_another():
    x = jnp.ones((1, 6, 6, 4))

    def longest_kernel(num_pools):
        def loss(x):
            pyramid = [x]
            for _ in range(num_pools):
                pyramid.append(max_pool(pyramid[-1], 5))
            return jnp.square(jnp.concatenate(pyramid, axis=-1)).sum()

        program = jax.jit(jax.grad(loss)).lower(x).compile()
        return max(computation.count("\n") for computation in program.as_text().split("\n\n") if "fused" in computation)

    assert longest_kernel(3) < longest_kernel(1) + 10  # lines of text; a pool within another has 20 more
