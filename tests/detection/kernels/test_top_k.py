"""The two-stage top-k gives exactly the values and places of lax.top_k."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax.detection.kernels import top_k


@pytest.mark.parametrize("num_anchors", [top_k.CHUNK * 10, top_k.CHUNK * 40, 500])
def test_two_stages_equal_one_also_for_equal_values(num_anchors):
    rng = np.random.default_rng(num_anchors)
    for values in (
        rng.normal(0, 1, (30, num_anchors)),
        rng.integers(0, 4, (30, num_anchors)),
        np.zeros((2, num_anchors)),
    ):
        x_GA = jnp.asarray(values, jnp.float32).at[:, ::7].set(-jnp.inf)
        for form in (top_k.top_k, jax.jit(top_k.top_k, static_argnums=1)):
            for found, expected in zip(form(x_GA, 10), jax.lax.top_k(x_GA, 10), strict=True):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("platform", "stages"), [("cpu", 2), ("cuda", 2), ("tpu", 1), ("rocm", 1)])
def test_only_on_a_cpu_and_on_cuda_it_has_two_stages(platform, stages):
    x_GA = jax.ShapeDtypeStruct((30, top_k.CHUNK * 40), jnp.float32)
    lowered = jax.jit(top_k.top_k, static_argnums=1).trace(x_GA, 10).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("chlo.top_k") == stages
