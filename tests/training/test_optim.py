"""Optimizers, weight decay groups, gradient clipping and EMA decay."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.material import GOLDEN
from yolox_jax.errors import UserError
from yolox_jax.models import yolox
from yolox_jax.training import optim

_GOLDEN = json.loads((GOLDEN / "schedule.json").read_text())


def test_ema_decays_are_the_references():
    ema = _GOLDEN["ema_decay"]
    ours = [optim.ema_decay(n, ema["base"]) for n in ema["at"]]
    np.testing.assert_allclose(ours, ema["value"], rtol=1e-4)


def test_only_convolution_kernels_decay():
    model = yolox.create("nano", 80)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))["params"]
    decays = jax.tree_util.tree_leaves_with_path(optim.decay_mask(params))
    for path, decay in decays:
        names = [key.key for key in path]
        is_kernel = names[-2] == "conv" or "_preds" in names[-3]
        assert decay == (is_kernel and names[-1] == "kernel"), names
    # 104 convolutions with BatchNorm and 9 prediction layers, as the reference's second parameter group.
    assert sum(decay for _, decay in decays) == 113


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_the_first_state_is_that_of_optax(name):
    optimizer = optim.create(name, momentum=0.9, weight_decay=0.1)
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    ours, theirs = optim.init(optimizer, params), optimizer.init(params)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for leaf, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert leaf.dtype == expected.dtype
        np.testing.assert_array_equal(leaf, expected)


def test_sgd_is_torchs_nesterov_written_out():
    optimizer = optim.sgd(momentum=0.9, weight_decay=0.1)
    params = {"kernel": jnp.array(2.0), "bias": jnp.array(2.0)}
    state = optimizer.init(params)
    expected = {name: 2.0 for name in params}
    buffers = {name: 0.0 for name in params}
    for gradient in (1.0, -0.5, 0.25):
        updates, state = optimizer.update(jax.tree.map(lambda _, g=gradient: jnp.array(g), params), state, params)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, params, updates)
        for name, decay in (("kernel", 0.1), ("bias", 0.0)):
            g = gradient + decay * expected[name]
            buffers[name] = 0.9 * buffers[name] + g
            expected[name] -= 0.1 * (g + 0.9 * buffers[name])
    np.testing.assert_allclose([params["kernel"], params["bias"]], [expected["kernel"], expected["bias"]], rtol=1e-6)


@pytest.mark.parametrize("max_norm", [0.1, 3.0, 1e6])
def test_clipped_gradients_are_those_of_optax(max_norm):
    rng = np.random.default_rng(0)
    gradients = {
        "a": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=7), jnp.float32),
    }
    norm = jnp.sqrt(sum((leaf**2).sum() for leaf in gradients.values()))
    expected, _ = optax.clip_by_global_norm(max_norm).update(gradients, optax.EmptyState())
    clipped = optim.clip_to_norm(gradients, norm, max_norm)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6), clipped, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adam", 0.9, 0.0), "config.optimizer is 'adam': choose one of sgd, adamw"),
        (("sgd", 1.0, 0.0), "config.momentum is 1.0: give a number from 0 to below 1"),
        (("sgd", 0.9, -1.0), "config.weight_decay is -1.0: give 0 or more"),
    ],
)
def test_an_unknown_optimizer_is_refused(arguments, message):
    name, momentum, weight_decay = arguments
    with pytest.raises(UserError, match=message):
        optim.create(name, momentum=momentum, weight_decay=weight_decay)
