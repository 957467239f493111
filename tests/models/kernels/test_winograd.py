"""Winograd's form of a 3×3 convolution against the formula, in float32 and beside float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.kernels.agreement import assert_agree, normal
from yolox_jax.models.kernels import convolution, winograd


@pytest.mark.parametrize("hw", [(8, 12), (7, 9), (13, 5), (2, 3), (1, 1)])
def test_values_and_gradients_are_those_of_the_formula(hw):
    dense_conv = functools.partial(convolution.dense_conv, stride=1, cpu_kernels="onednn")
    x, kernel = normal(0, 2, *hw, 64), normal(1, 3, 3, 64, 80) / 24
    assert winograd.is_faster(kernel, stride=1)
    assert_agree(dense_conv, functools.partial(convolution.dense_plain, stride=1), x, kernel)


def test_rounding_errors_are_near_those_of_the_formula():
    """The formula's are 4e-7 by XLA and 6e-7 by oneDNN; at the points 0, ±1 and ±2, Winograd's would be 1.2e-6."""
    x, kernel, grad = normal(0, 2, 20, 20, 128), normal(1, 3, 3, 128, 128), normal(2, 2, 20, 20, 128)
    ours = winograd.conv(x, kernel), winograd.input_grad(grad, kernel), winograd.filter_grad(x, grad)
    exact = _in_float64(*(np.asarray(array, np.float64) for array in (x, kernel, grad)))
    for by_winograd, right in zip(ours, exact, strict=True):
        assert np.std(by_winograd - right) < 1e-6 * np.std(right)


@pytest.mark.parametrize(
    ("shape", "stride", "is_taken"),
    [
        ((3, 3, 64, 64), 1, True),
        ((3, 3, 64, 64), 2, False),
        ((5, 5, 64, 64), 1, False),
        ((3, 3, 32, 64), 1, False),
        ((3, 3, 64, 32), 1, False),
    ],
)
def test_only_large_kernels_at_stride_1_are_taken_and_only_for_onednn(shape, stride, is_taken):
    def num_convolutions(cpu_kernels):
        conv = functools.partial(convolution.dense_conv, stride=stride, cpu_kernels=cpu_kernels)
        text = jax.jit(conv).lower(jnp.zeros((1, 8, 8, shape[2])), jnp.zeros(shape)).as_text()
        return text.count("stablehlo.convolution")

    assert num_convolutions("onednn") == (6 if is_taken else 1)
    assert num_convolutions("xla") == 1


def _in_float64(x, kernel, grad):
    def conv(x, kernel):
        return sum(view @ kernel[tap] for tap, view in views(x).items())

    def views(x):
        _, height, width, _ = x.shape
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return {(i, j): x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)}

    by_tap = [view.reshape(-1, view.shape[-1]).T @ grad.reshape(-1, grad.shape[-1]) for view in views(x).values()]
    return conv(x, kernel), conv(grad, kernel[::-1, ::-1].transpose(0, 1, 3, 2)), np.reshape(by_tap, kernel.shape)
