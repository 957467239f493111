"""Batch normalization against autodiff of its formula, on one device and over a mapped axis."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.kernels.agreement import assert_agree, normal
from yolox_jax.models.kernels import batch_norm
from yolox_jax.models.kernels.batch_norm import normalize, normalize_plain
from yolox_jax.models.kernels.silu import silu

_EPSILON = 1e-3


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 0.02), (jnp.float16, 0.0025)])
def test_normalization_and_its_gradients_agree_with_autodiff_of_the_formula(dtype, tolerance):
    x = (3 + 2 * normal(0, 2, 5, 7, 6)).astype(dtype)
    scale, bias = normal(1, 6), normal(2, 6)
    fast, plain = (lambda *arrays, f=f: f(*arrays, _EPSILON)[0] for f in (normalize, normalize_plain))
    assert_agree(fast, plain, x, scale, bias, rtol=tolerance, atol=tolerance)
    for ours, expected in zip(
        normalize(x, scale, bias, _EPSILON)[1:], normalize_plain(x, scale, bias, _EPSILON)[1:], strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize(("mean", "std"), [(0, 1), (3, 2), (-50, 1), (1e-3, 1e-4), (100, 0)])
def test_moments_are_those_of_float64(mean, std, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(mean, std, (4, 20, 20, 3)), dtype)
    exact = np.asarray(x, np.float64)
    ours_mean, ours_var = jax.jit(lambda x: batch_norm._moments(x, 3))(x)
    np.testing.assert_allclose(ours_mean, exact.mean((0, 1, 2)), rtol=1e-5, atol=1e-5 * std)
    # In E[x²] − E[x]², float32 loses digits in proportion to the squared mean.
    # Until jaxlib 0.10.1, XLA:CPU adds up all 1600 squares in one row, which loses √1600 · 2⁻²⁴ = 2.4e-6 on average.
    lost = 1e-6 if jax.__version_info__ >= (0, 10, 2) else 4e-6
    assert (ours_var >= 0).all()
    np.testing.assert_allclose(ours_var, exact.var((0, 1, 2)), rtol=1e-5, atol=lost * mean**2)


def _run(function, x, weight, scale, bias, axis_name):
    def loss(*arrays):
        y, *statistics = function(*arrays, _EPSILON, axis_name)
        return (y * weight).sum(), (y, statistics)

    gradients, (y, statistics) = jax.grad(loss, (0, 1, 2), has_aux=True)(x, scale, bias)
    return gradients, y, statistics


@pytest.mark.parametrize("function", [normalize, normalize_plain])
def test_over_an_axis_outputs_statistics_and_gradients_are_those_of_all_devices(function):
    """All equal those of the whole batch, if the gradients of scale and bias are summed over the devices."""
    x, weight, scale, bias = 3 + 2 * normal(0, 8, 4, 5, 3), normal(1, 8, 4, 5, 3), normal(2, 3), normal(3, 3)
    on_one = functools.partial(_run, function, scale=scale, bias=bias, axis_name="data")
    shards = (array.reshape(4, 2, *array.shape[1:]) for array in (x, weight))
    (grad_x, *shares), y, statistics = jax.vmap(on_one, axis_name="data")(*shards)
    (whole_grad_x, *whole_grads), whole_y, whole_statistics = _run(normalize_plain, x, weight, scale, bias, None)
    for ours, whole in ((y, whole_y), (grad_x, whole_grad_x)):
        np.testing.assert_allclose(ours.reshape(whole.shape), whole, rtol=1e-4, atol=1e-5)
    for share, whole in zip(shares, whole_grads, strict=True):
        np.testing.assert_allclose(share.sum(0), whole, rtol=1e-4, atol=1e-4)
    for ours, whole in zip(statistics, whole_statistics, strict=True):
        np.testing.assert_allclose(ours, np.broadcast_to(whole, ours.shape), rtol=1e-5)


@pytest.mark.parametrize("activation", [batch_norm.no_activation, silu, jax.nn.leaky_relu])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_both_forms_of_the_gradient_through_an_activation_have_the_same_bits(activation, dtype):
    """A GPU runs the joint form, which computes the activation's gradient at each use."""
    x, grad = (3 + 2 * normal(0, 2, 5, 7, 6)).astype(dtype), normal(1, 2, 5, 7, 6, dtype=dtype)
    arguments = (x, normal(2, 6), normal(3, 6), _EPSILON, None, dtype, activation)
    # Operation by operation: compiled as one, y would be rounded otherwise than where the joint form computes it again.
    _, saved = batch_norm._normalize_fwd.__wrapped__(*arguments)
    apart, joint = (form(None, activation, saved, grad) for form in (batch_norm._apart_bwd, batch_norm._joint_bwd))
    jax.tree.map(np.testing.assert_array_equal, joint, apart)


def test_the_activation_is_that_of_the_normalized_array_in_the_dtype():
    x, scale, bias = 3 + 2 * normal(0, 2, 5, 7, 6), normal(1, 6), normal(2, 6)
    fast = functools.partial(normalize, epsilon=_EPSILON, axis_name=None, dtype=jnp.float32, activation=silu)
    assert_agree(
        lambda *arrays: fast(*arrays)[0], lambda *arrays: silu(normalize_plain(*arrays, _EPSILON)[0]), x, scale, bias
    )


@pytest.mark.parametrize(("platform", "barriers"), [("cpu", 0), ("tpu", 0), ("cuda", 1), ("rocm", 0)])
def test_only_on_cuda_the_gradients_are_joint(platform, barriers):
    def gradients(x, scale, bias):
        return jax.grad(lambda x: normalize(x, scale, bias, _EPSILON, None, jnp.float32, silu)[0].sum())(x)

    lowered = jax.jit(gradients).trace(normal(0, 2, 4, 4, 6), normal(1, 6), normal(2, 6))
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("optimization_barrier") == barriers


def test_on_a_cpu_layers_keep_two_arrays_each_for_their_gradients():
    """What is normalized, and the output, which the next layer's weight needs; not x less its mean as a third."""
    x, weights, scale, bias = normal(0, 2, 16, 16, 32), normal(1, 8, 32, 32), normal(2, 32), normal(3, 32)

    def loss(x, weights):
        for weight in weights:
            x = normalize(jnp.tensordot(x, weight, 1), scale, bias, _EPSILON, None, jnp.float32, silu)[0]
        return x.sum()

    memory = jax.jit(jax.grad(loss, (0, 1))).lower(x, weights).compile().memory_analysis()
    assert memory.temp_size_in_bytes < (2 * len(weights) + 4) * x.nbytes
