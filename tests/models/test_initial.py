"""Initial variables: torch's distribution, the same numbers for a seed, and nothing compiled for them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax.models import initial
from yolox_jax.models.layers import BatchNorm, Conv

_FIRST_OF_SEED_0 = (-0.14024880528450012, -0.1870357096195221, 0.16848328709602356)


class _Network(nn.Module):
    """Layers of ours and, if `is_mixed`, one of Flax's."""

    is_mixed: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = Conv(64, 3, bias_init=initial.constant(-4.5), name="conv")(images)
        x = BatchNorm(name="bn")(x, False)
        return nn.Dense(5, name="dense")(x) if self.is_mixed else x


def _numbers(variables):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables)])


@pytest.mark.parametrize("drawn_by", ["host", "module"])
def test_kernels_are_uniform_as_in_torch_and_all_else_is_constant(drawn_by):
    images = jnp.zeros((1, 32, 32, 3))
    draw = (
        initial.init_variables if drawn_by == "host" else lambda model, seed: model.init(jax.random.key(seed), images)
    )
    variables = draw(_Network(), 0)
    kernel, bound = np.asarray(variables["params"]["conv"]["kernel"]), 1 / np.sqrt(3 * 3 * 3)
    assert kernel.shape == (3, 3, 3, 64)
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.05)
    np.testing.assert_allclose(kernel.mean(), 0, atol=0.05 * bound)
    constants = {"params": {"conv": variables["params"]["conv"]["bias"], "bn": variables["params"]["bn"]}}
    assert jax.tree.map(lambda x: set(np.asarray(x).tolist()), constants) == {
        "params": {"conv": {-4.5}, "bn": {"scale": {1.0}, "bias": {0.0}}}
    }
    assert set(variables["batch_stats"]["bn"]["mean"].tolist()) == {0.0}
    assert set(variables["batch_stats"]["bn"]["var"].tolist()) == {1.0}


def test_a_given_fan_in_sets_the_bound_of_a_bias():
    bias = initial.uniform(fan_in=16)(jax.random.key(0), (4000,))
    assert 0.24 < jnp.abs(bias).max() <= 0.25


def test_a_seed_gives_the_same_numbers_again_and_another_seed_gives_others():
    first, again, other = (initial.init_variables(_Network(), seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(_numbers(first), _numbers(again))
    assert not np.array_equal(first["params"]["conv"]["kernel"], other["params"]["conv"]["kernel"])


def test_these_are_the_numbers_of_seed_0():
    """They may not change with a version of numpy or JAX: a run that starts again must begin at the same weights."""
    kernel = initial.init_variables(_Network(), 0)["params"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel.ravel()[:3], np.array(_FIRST_OF_SEED_0, np.float32))


def test_layers_with_other_initializers_draw_by_their_own():
    model = _Network(is_mixed=True)
    variables, expected = (
        initial.init_variables(model, 3),
        jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 32, 32, 3))),
    )
    np.testing.assert_array_equal(variables["params"]["dense"]["kernel"], expected["params"]["dense"]["kernel"])
    alone = initial.init_variables(_Network(), 3)
    np.testing.assert_array_equal(variables["params"]["conv"]["kernel"], alone["params"]["conv"]["kernel"])
