"""The forms for oneDNN against the formulas, and what XLA gives to oneDNN of a network and its gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.kernels.agreement import assert_agree, normal
from tests.onednn import needs_onednn
from yolox_jax import compiler_options
from yolox_jax.models import yolox
from yolox_jax.models.blocks import BlockConfig, spatial_block
from yolox_jax.models.kernels import convolution, depthwise, onednn


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (5, 2), (3, 3), (5, 3)])
def test_gradients_at_a_stride_agree_with_those_of_the_convolution(size, stride):
    x, kernel = normal(0, 2, 6, 12, 3), normal(1, size, size, 3, 5)
    grad, pull_back = jax.vjp(lambda x, kernel: convolution.dense_plain(x, kernel, stride), x, kernel)
    grads = onednn.strided_input_grad(grad, kernel, stride), onednn.strided_filter_grad(x, grad, size, stride)
    for ours, plain in zip(grads, pull_back(grad), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("hw", [(8, 12), (7, 9)])
def test_convolutions_for_onednn_agree_with_the_formulas(stride, hw):
    x = normal(0, 2, *hw, 6)
    for fast, plain, kernel in (
        (convolution.dense_conv, convolution.dense_plain, normal(1, 3, 3, 6, 5)),
        (depthwise.depthwise_conv, depthwise.depthwise_plain, normal(1, 3, 3, 1, 6)),
    ):
        ours = functools.partial(fast, stride=stride, cpu_kernels="onednn")
        assert_agree(ours, functools.partial(plain, stride=stride), x, kernel)


def test_networks_of_sixteen_bits_stay_with_xla():
    assert yolox.create("nano", dtype=jnp.float32, cpu_kernels="onednn").cpu_kernels == "onednn"
    assert yolox.create("nano", dtype=jnp.bfloat16, cpu_kernels="onednn").cpu_kernels == "xla"


@pytest.mark.slow
@needs_onednn
@pytest.mark.parametrize(("is_depthwise", "features"), [(False, 32), (False, 64), (True, 32)])
def test_xla_gives_every_convolution_to_onednn_and_the_gradients_agree(is_depthwise, features):
    """Two blocks, of stride 2 and 1, with gradients of input and parameters; with 64 channels by Winograd's form."""
    x = normal(0, 2, 16, 16, 24)

    def gradients(cpu_kernels):
        config = BlockConfig(depthwise=is_depthwise, cpu_kernels=cpu_kernels)
        blocks = [spatial_block(features, stride, config, name=None) for stride in (2, 1)]

        def loss(x, params):
            for block, variables in zip(blocks, params, strict=True):
                x, _ = block.apply(variables, x, True, mutable=["batch_stats"])
            return jnp.square(x).mean()

        shapes = (x, jnp.zeros((2, 8, 8, features)))
        params = [block.init(jax.random.key(0), like, True) for block, like in zip(blocks, shapes, strict=True)]
        lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, params)
        with compiler_options.uncached(cpu_kernels):
            compiled = lowered.compile(compiler_options=compiler_options.for_training_step("cpu", cpu_kernels))
        return compiled(x, params), compiled.as_text()

    (by_onednn, text), (by_xla, _) = gradients("onednn"), gradients("xla")
    assert "__onednn$convolution" in text
    assert not re.search(r" convolution\(", text), "a convolution that oneDNN does not take"
    for ours, plain in zip(jax.tree.leaves(by_onednn), jax.tree.leaves(by_xla), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-3, atol=1e-5)
