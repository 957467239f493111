"""The hand-written forms of layers against XLA's own and against the definitions."""

import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from yolox_jax.models import blocks, layers


def _grouped_convolution(x, kernel, stride):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(kernel.shape[0] // 2,) * 2] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
def test_depthwise_convolution_and_its_gradients_equal_xlas_grouped_convolution(size, stride):
    rng = np.random.default_rng(size + stride)
    x = jnp.asarray(rng.normal(size=(2, 8, 12, 6)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, 1, 6)), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(2, 8 // stride, 12 // stride, 6)), jnp.float32)

    def run(convolution):
        value, gradients = jax.value_and_grad(lambda x, k: (convolution(x, k, stride) * weight).sum(), (0, 1))(
            x, kernel
        )
        return convolution(x, kernel, stride), value, gradients

    ours, expected = run(layers.depthwise_conv), run(_grouped_convolution)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_both_forms_of_the_filter_gradient_agree(stride):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 8, 8, 4)), jnp.float32)
    grad = jnp.asarray(rng.normal(size=(3, 8 // stride, 8 // stride, 4)), jnp.float32)
    plain = layers._depthwise_filter_grad(x, grad, size=3, stride=stride)
    chained = layers._depthwise_filter_grad_chained(x, grad, size=3, stride=stride)
    np.testing.assert_allclose(plain, chained, rtol=1e-4, atol=1e-5)


def test_pointwise_convolution_and_its_gradients_equal_autodiff_of_the_matrix_product():
    rng = np.random.default_rng(0)
    x, kernel, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 4, 5, 6), (6, 3), (2, 4, 5, 3)))

    def run(convolution):
        return jax.value_and_grad(lambda x, k: (convolution(x, k) * weight).sum(), (0, 1))(x, kernel)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        run(layers.pointwise_conv),
        run(operator.matmul),
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradients_of_large_images_in_parts_are_those_of_all_at_once(stride, monkeypatch):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0, 1, (6, 16, 20, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(0, 1, (3, 3, 3, 5)), jnp.float32)
    out, pull_whole = jax.vjp(lambda x, kernel: layers.dense_conv(x, kernel, stride), x, kernel)
    grad = jnp.asarray(rng.normal(0, 1, out.shape), jnp.float32)
    whole = pull_whole(grad)
    monkeypatch.setattr(layers, "_MANY_PIXELS", 16 * 20)
    _, pull_in_parts = jax.vjp(lambda x, kernel: layers.dense_conv(x, kernel, stride), x, kernel)
    in_parts = jax.jit(pull_in_parts)
    assert in_parts.lower(grad).as_text().count("stablehlo.convolution") == 12  # two of each of six images
    for one, other in zip(in_parts(grad), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("levels", [3, 1000])  # with many equal values, and nearly none
def test_maxima_and_their_gradients_equal_xlas_pooling(levels):
    """Whose gradient goes to the first of equal values, too."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-levels, levels, (2, 9, 11, 4)), jnp.float32)
    expected, pull_expected = jax.vjp(lambda x: nn.max_pool(x, (5, 5), padding="SAME"), x)
    found, pull = jax.vjp(lambda x: layers.max_pool(x, 5), x)
    np.testing.assert_array_equal(found, expected)
    grad = jnp.asarray(rng.integers(1, 100, found.shape), jnp.float32)
    np.testing.assert_array_equal(pull(grad)[0], pull_expected(grad)[0])


def test_silu_and_its_gradient_equal_autodiff_of_flaxs():
    x = jnp.asarray([-200.0, -20, -3, -0.5, 0, 0.5, 3, 20, 200], jnp.float32)
    for ours, expected in ((layers.silu, nn.silu), (jax.grad(layers.silu), jax.grad(nn.silu))):
        np.testing.assert_allclose(jax.vmap(ours)(x), jax.vmap(expected)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [(0, 1), (3, 2), (-50, 1), (1e-3, 1e-4)])
def test_moments_of_bfloat16_in_one_pass_are_those_of_float64(mean, std):
    x = jnp.asarray(np.random.default_rng(0).normal(mean, std, (4, 20, 20, 3)), jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    ours_mean, ours_var = jax.jit(lambda x: layers._moments(x, 3))(x)
    np.testing.assert_allclose(ours_mean, exact.mean((0, 1, 2)), rtol=1e-5, atol=1e-5 * std)
    # The digits that cancel are those of the squared mean in float32; bfloat16 has rounded x itself by far more.
    np.testing.assert_allclose(ours_var, exact.var((0, 1, 2)), rtol=1e-5, atol=1e-6 * mean**2)


def test_normalize_and_its_gradients_equal_autodiff_of_the_definition():
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(3, 2, (2, 4, 5, 6)), jnp.float32) for _ in range(2))
    scale, bias = (jnp.asarray(rng.normal(size=6), jnp.float32) for _ in range(2))

    def definition(x, scale, bias):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        y = (x - mean[None, None, None]) / jnp.sqrt(var + layers.BN_EPSILON)[None, None, None]
        return y * scale[None, None, None] + bias[None, None, None], mean, var

    def run(function):
        gradients = jax.grad(lambda *args: (function(*args)[0] * weight).sum(), (0, 1, 2))(x, scale, bias)
        return function(x, scale, bias), gradients

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), run(layers.normalize), run(definition)
    )


def test_normalisation_over_an_axis_is_that_of_all_its_devices_images():
    """Output, statistics and gradients; those of the parameters are each device's share of the whole."""
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(3, 2, (8, 4, 5, 3)), jnp.float32) for _ in range(2))
    scale, bias = (jnp.asarray(rng.normal(size=3), jnp.float32) for _ in range(2))

    def run(x, weight, axis_name):
        def loss(*args):
            y, *statistics = layers.normalize(*args, axis_name)
            return (y * weight).sum(), (y, statistics)

        gradients, (y, statistics) = jax.grad(loss, (0, 1, 2), has_aux=True)(x, scale, bias)
        return gradients, y, statistics

    def divided(array):
        return array.reshape(4, 2, *array.shape[1:])

    (grad_x, *shares), y, statistics = jax.vmap(functools.partial(run, axis_name="data"), axis_name="data")(
        divided(x), divided(weight)
    )
    (whole_grad_x, *whole_grads), whole_y, whole_statistics = run(x, weight, None)
    for ours, whole in ((y, whole_y), (grad_x, whole_grad_x)):
        np.testing.assert_allclose(ours.reshape(whole.shape), whole, rtol=1e-4, atol=1e-5)
    for share, whole in zip(shares, whole_grads, strict=True):
        np.testing.assert_allclose(share.sum(0), whole, rtol=1e-4, atol=1e-4)
    for ours, whole in zip(statistics, whole_statistics, strict=True):
        np.testing.assert_allclose(ours, np.broadcast_to(whole, ours.shape), rtol=1e-5)


def test_running_variance_is_the_unbiased_one_and_moves_by_three_hundredths():
    x = jnp.asarray(np.random.default_rng(0).normal(5, 2, (1, 2, 3, 1)), jnp.float32)
    module = layers.BatchNorm()
    variables = module.init(jax.random.key(0), x, False)
    _, updated = module.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [0.03 * x.mean()], rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], [0.97 + 0.03 * x.var(ddof=1)], rtol=1e-5)


def test_kernels_start_as_torch_starts_them():
    kernel = layers.kernel_init(jax.random.key(0), (3, 3, 64, 64), jnp.float32)
    bound = 1 / np.sqrt(3 * 3 * 64)
    assert 0.99 * bound < jnp.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)


def test_upsampling_repeats_each_pixel():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(blocks.upsample2(x)[0, :, :, 0], np.kron(x[0, :, :, 0], np.ones((2, 2))))
