"""Learning rate, weight decay groups and the running average against the reference's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import GOLDEN
from yolox_jax.models import yolox
from yolox_jax.training import optim
from yolox_jax.training.schedule import Schedule

_GOLDEN = json.loads((GOLDEN / "schedule.json").read_text())


def _golden_schedule() -> Schedule:
    lr = _GOLDEN["lr"]
    return Schedule(
        base_lr=lr["base_lr"],
        steps_per_epoch=lr["iters_per_epoch"],
        epochs=lr["epochs"],
        warmup_epochs=lr["warmup_epochs"],
        no_aug_epochs=lr["no_aug_epochs"],
        min_lr_ratio=lr["min_lr_ratio"],
    )


def test_learning_rates_are_the_references():
    steps = np.array(_GOLDEN["lr"]["at"])
    ours = jax.vmap(_golden_schedule().learning_rate)(steps)
    np.testing.assert_allclose(ours, _GOLDEN["lr"]["value"], rtol=2e-5, atol=1e-9)


def test_ema_decays_are_the_references():
    ema = _GOLDEN["ema_decay"]
    ours = [optim.ema_decay(n, ema["base"]) for n in ema["at"]]
    np.testing.assert_allclose(ours, ema["value"], rtol=1e-4)


def test_without_warmup_the_first_step_runs_at_the_full_rate():
    schedule = Schedule(0.1, 10, 5, warmup_epochs=0, no_aug_epochs=1, min_lr_ratio=0.05)
    np.testing.assert_allclose(schedule.learning_rate(0), 0.1)


def test_the_l1_loss_counts_from_the_first_step_of_the_last_epochs():
    schedule = Schedule(0.1, 10, 5, warmup_epochs=1, no_aug_epochs=2, min_lr_ratio=0.05)
    assert [float(schedule.l1_weight(step)) for step in (0, 29, 30, 49)] == [0, 0, 1, 1]


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


def test_an_unknown_optimizer_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'adam': choose one of sgd, adamw"):
        optim.create("adam", momentum=0.9, weight_decay=0.0)
