"""Compares a fast form of an operation with its plain formula, in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def value_and_gradients(function, *arrays):
    """The output, and the gradients by all arrays of its sum weighted by random numbers."""
    output, pull_back = jax.vjp(function, *arrays)
    return output, pull_back(normal(99, *output.shape, dtype=output.dtype))


def assert_agree(fast, plain, *arrays, rtol=1e-4, atol=1e-4):
    def compare(ours, expected):
        assert ours.dtype == expected.dtype and ours.shape == expected.shape
        np.testing.assert_allclose(ours.astype(jnp.float32), expected.astype(jnp.float32), rtol=rtol, atol=atol)

    def run(function):  # compiled whole: operation by operation, it takes several times as long
        return jax.jit(functools.partial(value_and_gradients, function))(*arrays)

    jax.tree.map(compare, run(fast), run(plain))
