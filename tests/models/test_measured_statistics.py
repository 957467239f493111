"""BatchNorm statistics measured on images, against a loop in numpy over two layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax.errors import UserError
from yolox_jax.models import measured_statistics
from yolox_jax.models.layers import BN_EPSILON, BatchNorm

_NUM_BATCHES = 3


class _TwoLayers(nn.Module):
    """What the second BatchNorm sees depends on how the first one normalizes."""

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
        x_BHWC = BatchNorm(name="first")(x_BHWC, train)
        return BatchNorm(name="second")(x_BHWC * jnp.arange(1, 4, dtype=jnp.float32)[None, None, None], train)


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (4, 2, 3, 3)).astype(np.uint8) for _ in range(_NUM_BATCHES)]


@pytest.fixture(scope="module")
def variables(batches):
    made = _TwoLayers().init(jax.random.key(0), batches[0].astype(np.float32))
    # Statistics of elsewhere: they are not what is measured.
    return {**made, "batch_stats": jax.tree.map(lambda x: x + 7.0, made["batch_stats"])}


def _naive(batches, first_mean=None, first_var=None):
    """The mean over the batches of each layer's mean and unbiased variance; the first layer's may be given."""
    measured = []
    for images in batches:
        x = images.astype(np.float64)
        of_first = (x.mean((0, 1, 2)), x.var((0, 1, 2), ddof=1))
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if first_mean is None else (first_mean, first_var)
        y = (x - mean) / np.sqrt(var + BN_EPSILON) * np.arange(1, 4)
        measured.append([*of_first, y.mean((0, 1, 2)), y.var((0, 1, 2), ddof=1)])
    return np.mean(measured, axis=0)


def _as_array(variables):
    stats = variables["batch_stats"]
    return np.array([stats[layer][name] for layer in ("first", "second") for name in ("mean", "var")])


def test_the_statistics_are_those_of_a_loop_over_the_batches(variables, batches):
    counts = []
    measured = measured_statistics.measure(_TwoLayers(), variables, batches, progress=counts.append)
    np.testing.assert_allclose(_as_array(measured), _naive(batches), rtol=2e-5, atol=2e-5)
    assert measured["params"] is variables["params"] and counts == [1, 2, 3]


def test_statistics_that_stay_are_those_by_which_their_layer_normalizes_meanwhile(variables, batches):
    measured = measured_statistics.measure(_TwoLayers(), variables, batches, keep=("^first/(mean|var)$",))
    mean, var = np.full(3, 7.0), np.full(3, 8.0)
    expected = np.array([mean, var, *_naive(batches, mean, var)[2:]])
    np.testing.assert_allclose(_as_array(measured), expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(_as_array(measured)[:2], [mean, var])


def test_statistics_of_another_layer_are_refused(batches):
    class Other(nn.Module):
        @nn.compact
        def __call__(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
            return nn.BatchNorm(use_running_average=not train, name="own")(BatchNorm(name="first")(x_BHWC, train))

    variables = Other().init(jax.random.key(0), batches[0].astype(np.float32))
    with pytest.raises(UserError, match="the statistic own/mean is not of a BatchNorm of yolox_jax/models/layers.py"):
        measured_statistics.measure(Other(), variables, batches)
