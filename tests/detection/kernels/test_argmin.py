"""The argmin written as two minima equals jnp.argmin."""

import jax.numpy as jnp
import numpy as np

from yolox_jax.detection.kernels.argmin import argmin_rows


def test_two_minima_equal_argmin_also_for_equal_and_infinite_values():
    values = np.random.default_rng(0).integers(0, 5, (7, 200)).astype(np.float32)
    values[:, :10] = np.inf
    values[2:, 10:20] = -np.inf
    np.testing.assert_array_equal(argmin_rows(jnp.asarray(values)), jnp.argmin(values, axis=0))
