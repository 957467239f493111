"""SiLU's hand-written gradient against autodiff's."""

import jax.numpy as jnp
import pytest

from tests.models.kernels.agreement import assert_agree
from yolox_jax.models.kernels.silu import silu, silu_plain


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.02), (jnp.float16, 0.0025)])
def test_silu_and_its_gradient_agree_with_autodiff_of_the_formula(dtype, tolerance):
    x = jnp.asarray([-200.0, -20, -3, -0.5, 0, 0.5, 3, 20, 200], dtype)
    assert_agree(silu, silu_plain, x, rtol=tolerance, atol=tolerance)
