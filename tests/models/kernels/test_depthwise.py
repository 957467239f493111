"""Shifted multiply-adds against XLA's grouped convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.kernels.agreement import assert_agree, normal
from yolox_jax.models.kernels import depthwise


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("hw", [pytest.param((8, 12), marks=pytest.mark.slow), (7, 9)])
def test_the_fast_form_agrees_with_the_grouped_convolution(size, stride, hw):
    assert_agree(
        functools.partial(depthwise.depthwise_conv, stride=stride),
        functools.partial(depthwise.depthwise_plain, stride=stride),
        normal(0, 3, *hw, 6),
        normal(1, size, size, 1, 6),
    )


@pytest.mark.parametrize(
    ("dtype", "rounding"), [(jnp.bfloat16, 1.0), pytest.param(jnp.float16, 1 / 8, marks=pytest.mark.slow)]
)
def test_in_sixteen_bits_the_fast_form_agrees_within_their_rounding(dtype, rounding):
    """The filter's gradient is summed in float32, so it is rounded once."""
    x, kernel = normal(0, 3, 8, 12, 6, dtype=dtype), normal(1, 3, 3, 1, 6, dtype=dtype)
    assert_agree(
        functools.partial(depthwise.depthwise_conv, stride=2),
        functools.partial(depthwise.depthwise_plain, stride=2),
        x,
        kernel,
        rtol=0.02 * rounding,
        atol=0.05 * rounding,
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [3, 11])  # 11 has no divisor up to 8
def test_both_forms_of_the_filter_gradient_agree(stride, batch):
    """A CPU runs the chained form; other devices run the other one."""
    x, grad = normal(0, batch, 8, 8, 4), normal(1, batch, 8 // stride, 8 // stride, 4)
    plain = depthwise._filter_grad(x, grad, size=3, stride=stride)
    chained = jax.jit(functools.partial(depthwise._filter_grad_chained, size=3, stride=stride))(x, grad)
    np.testing.assert_allclose(plain, chained, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("tpu", 0), ("cuda", 3), ("rocm", 0)])
def test_only_on_cuda_it_is_the_grouped_convolution(platform, convolutions):
    def loss(x, kernel):
        return (depthwise.depthwise_conv(x, kernel, 2) ** 2).sum()

    lowered = jax.jit(jax.grad(loss, (0, 1))).trace(normal(0, 2, 8, 8, 6), normal(1, 3, 3, 1, 6))
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == convolutions
