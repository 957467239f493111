"""Variables are frozen by their paths, and a frozen BatchNorm normalizes by its running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import toy
from yolox_jax.errors import UserError
from yolox_jax.models import freezing


def test_a_pattern_matches_the_paths_of_parameters_and_statistics():
    variables = toy.create_variables()
    mask = freezing.frozen_mask(variables, ("^ConvBlock_0/",))
    for collection in ("params", "batch_stats"):
        for name, of_block in mask[collection].items():
            assert set(jax.tree.leaves(of_block)) == {name == "ConvBlock_0"}
    assert not any(jax.tree.leaves(freezing.frozen_mask(variables, ())))


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("neck",), "'neck', which matches no variable: give a part of .* such as ConvBlock_0/bn/mean"),
        (("(",), "has '\\(', which is not a regular expression"),
        ((1,), "has 1, which is not a regular expression"),
        (("Conv",), "freezes every parameter"),
    ],
)
def test_a_pattern_that_is_invalid_or_matches_nothing_or_everything_is_refused(patterns, message):
    with pytest.raises(UserError, match=f"config.freeze .*{message}"):
        freezing.frozen_mask(toy.create_variables(), patterns)


def test_a_batch_norm_with_frozen_statistics_uses_and_keeps_them_in_training():
    variables = jax.tree.map(jnp.array, toy.create_variables())
    variables["batch_stats"] = jax.tree.map(lambda x: x + 0.5, variables["batch_stats"])
    images = jnp.asarray(toy.random_batch(0).images, jnp.float32)

    def train(patterns):
        with freezing.frozen_statistics(patterns):
            return toy.MODEL.apply(variables, images, train=True, mutable=["batch_stats"])

    predictions, updated = train(("mean", "var"))
    jax.tree.map(np.testing.assert_array_equal, predictions, toy.MODEL.apply(variables, images))
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])

    _, updated = train(("ConvBlock_1/bn/mean",))
    for name, before in variables["batch_stats"].items():
        same = jax.tree.map(lambda x, y: bool((x == y).all()), updated["batch_stats"][name], before)
        assert set(jax.tree.leaves(same)) == {name == "ConvBlock_1"}
