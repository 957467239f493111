"""Folded convolutions and networks against plain ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from yolox_jax.models import layers
from yolox_jax.models.blocks import BlockConfig, ConvBlock, CSPLayer, spatial_block
from yolox_jax.models.csp_darknet import CSPDarknet, Focus
from yolox_jax.models.folding import BLOCK


def _normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _fold(x_BHWC: jax.Array) -> jax.Array:
    """[B, H, W, C] to [B, H/2, W/2, C·4]."""
    batch, height, width, channels = x_BHWC.shape
    x = x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // 2, width // 2, channels * BLOCK)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1)])
def test_a_folded_convolution_is_the_fold_of_the_plain_one(size, stride):
    x, kernel = _normal(0, 2, 8, 12, 3), _normal(1, size, size, 3, 5)
    plain = lax.conv_general_dilated(
        x, kernel, (stride, stride), [(size // 2,) * 2] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(
        layers._folded_conv(_fold(x), kernel, stride, "stays"), _fold(plain), rtol=1e-5, atol=1e-5
    )
    if stride == 2:
        np.testing.assert_allclose(layers._folded_conv(_fold(x), kernel, 2, "ends"), plain, rtol=1e-5, atol=1e-5)


def test_folded_batch_norm_and_its_gradients_are_those_of_the_plain_one():
    x, weight, scale, bias = _normal(0, 2, 4, 6, 5), _normal(1, 2, 4, 6, 5), _normal(2, 5), _normal(3, 5)

    def run(x, weight):
        def loss(x, scale, bias):
            y, mean, var = layers.normalize(x, scale, bias)
            return (y * weight).sum(), (mean, var)

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(x, scale, bias)

    (ours, ours_moments), (ours_x, *ours_parameters) = run(_fold(x), _fold(weight))
    (theirs, moments), (grad_x, *parameters) = run(x, weight)
    expected = theirs, moments, _fold(grad_x), parameters
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (ours, ours_moments, ours_x, ours_parameters),
        expected,
    )


class _FirstStages(nn.Module):
    """Stem, first stage and what leads out of it, as CSPDarknet joins them."""

    folded: bool

    @nn.compact
    def __call__(self, images, train):
        config = BlockConfig(folded=self.folded)
        x = Focus(2, config, name="stem")(images, train)
        x = spatial_block(4, 2, config, name="down")(x, train)
        x = CSPLayer(4, 1, True, config, name="stage")(x, train)
        return ConvBlock(6, 3, 2, BlockConfig(), unfolds=self.folded, name="next")(x, train)


@pytest.mark.parametrize("train", [False, True])
def test_folded_stages_have_the_parameters_outputs_and_statistics_of_plain_ones(train):
    images = 100 * _normal(0, 1, 32, 48, 3)
    variables = jax.jit(lambda x: _FirstStages(False).init(jax.random.key(0), x, False))(images)

    def run(folded):
        return jax.jit(lambda v: _FirstStages(folded).apply(v, images, train, mutable=["batch_stats"]))(variables)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), run(True), run(False))


def test_a_backbone_that_folds_has_the_parameters_of_one_that_does_not():
    images = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)

    def shapes(dtype):
        backbone = CSPDarknet(32, 1, BlockConfig(dtype=dtype))
        variables = jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, False), images)
        features = jax.eval_shape(lambda v, x: backbone.apply(v, x, False), variables, images)
        return jax.tree.map(jnp.shape, variables), [level.shape for level in features], backbone.folds

    *plain, plain_folds = shapes(jnp.float32)
    *folding, folds = shapes(jnp.bfloat16)
    assert (plain_folds, folds) == (False, True)
    assert folding == plain
