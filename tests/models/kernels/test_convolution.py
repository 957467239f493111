"""Dense and 1×1 convolution against XLA's, in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import pytest

from tests.models.kernels.agreement import assert_agree, normal
from yolox_jax.models.kernels import convolution


def test_a_pointwise_convolution_is_a_1x1_convolution():
    assert_agree(
        convolution.pointwise_plain,
        lambda x, kernel: convolution.dense_plain(x, kernel[None, None], 1),
        normal(0, 2, 4, 5, 6),
        normal(1, 6, 3),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.02), (jnp.float16, 0.0025)])
def test_the_fast_pointwise_form_agrees_with_autodiff_of_the_matrix_product(dtype, tolerance):
    def in_float32(x, kernel):  # some versions of XLA:CPU would add up autodiff's gradient of the kernel in bfloat16
        return convolution.pointwise_plain(x.astype(jnp.float32), kernel.astype(jnp.float32)).astype(dtype)

    x, kernel = normal(0, 2, 4, 5, 6, dtype=dtype), normal(1, 6, 3, dtype=dtype)
    assert_agree(convolution.pointwise_conv, in_float32, x, kernel, rtol=tolerance, atol=tolerance)


def test_both_pointwise_forms_agree_in_values_and_gradients():
    x, kernel = normal(0, 2, 4, 5, 6), normal(1, 6, 3)
    assert_agree(convolution.pointwise_dense, convolution.pointwise_product, x, kernel)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 0), ("tpu", 0), ("cuda", 3), ("rocm", 0)])
def test_only_on_cuda_a_pointwise_convolution_is_one(platform, convolutions):
    gradients = jax.jit(jax.grad(lambda x, kernel: (convolution.pointwise_conv(x, kernel) ** 2).sum(), (0, 1)))
    text = gradients.trace(normal(0, 2, 4, 5, 6), normal(1, 6, 3)).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == convolutions
    assert text.count("stablehlo.dot_general") == 3 - convolutions


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("hw", [(16, 20), (7, 9)])
def test_the_gradients_of_large_images_in_parts_agree_with_those_of_the_whole_batch(stride, hw, monkeypatch):
    monkeypatch.setattr(convolution, "_MANY_PIXELS", 7 * 9)
    dense_conv = functools.partial(convolution.dense_conv, stride=stride)
    x, kernel = normal(0, 6, *hw, 3), normal(1, 3, 3, 3, 5)
    assert_agree(dense_conv, functools.partial(convolution.dense_plain, stride=stride), x, kernel)
    output, pull_back = jax.vjp(dense_conv, x, kernel)
    assert jax.jit(pull_back).lower(output).as_text().count("stablehlo.convolution") == 2 * 6  # two gradients per image


@pytest.mark.parametrize(("batch", "num_parts"), [(1, 1), (7, 7), (8, 8), (11, 1), (12, 6), (16, 8)])
def test_a_batch_is_split_into_at_most_eight_equal_parts(batch, num_parts):
    assert convolution.num_parts(batch) == num_parts


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("shape", [(1, 1, 6, 3), (3, 3, 6, 5), (3, 3, 1, 5)])
def test_a_stored_kernel_is_the_kernel(platform, shape):
    kernel = normal(0, *shape)
    ((name, stored),) = convolution.store_kernel(kernel, platform).items()
    if name == convolution.STORED_OHWI:
        stored = convolution.from_ohwi(stored)
    assert (stored == kernel).all()
