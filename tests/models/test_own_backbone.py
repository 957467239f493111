"""A network with a backbone that is not part of the package trains, freezes and detects."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import toy
from yolox_jax.inference.predict import DetectConfig, make_predict
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.models.blocks import BlockConfig
from yolox_jax.models.fpn import FPN
from yolox_jax.models.head import Head
from yolox_jax.models.pafpn import PAFPN
from yolox_jax.models.yolox import YOLOX
from yolox_jax.training import parallel, state
from yolox_jax.training.step import train_step


class OwnBackbone(nn.Module):
    """Flax's own convolutions and no normalization: features of 8, 12 and 16 channels at stride 8, 16 and 32."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> list[jax.Array]:
        x = nn.avg_pool(images / 255, (4, 4), (4, 4))
        levels = []
        for features in (8, 12, 16):
            x = nn.relu(nn.Conv(features, (3, 3), (2, 2))(x))
            levels.append(x)
        return levels


_CONFIG = BlockConfig()
_HEAD = functools.partial(Head, num_classes=toy.NUM_CLASSES, features=8, config=_CONFIG)
_MODEL = YOLOX(functools.partial(PAFPN, OwnBackbone, base_depth=1, config=_CONFIG), _HEAD)


@pytest.fixture(scope="module")
def trained():
    """The variables before and after ten steps on one batch with the first convolution frozen, and the losses."""
    mesh = make_mesh(1)
    config = toy.step_config(freeze=("^backbone/backbone/Conv_0/",))
    step = functools.partial(train_step, model=_MODEL, optimizer=toy.OPTIMIZER, config=config)
    before = state.init_variables(_MODEL, seed=0)
    train_state = place(state.create(jax.tree.map(jnp.copy, before), toy.OPTIMIZER), mesh)
    batch, losses = shard_batch(toy.random_batch(0), mesh), []
    program = parallel.map_step(step, mesh).lower(train_state, batch).compile()
    for _ in range(10):
        train_state, metrics = program(train_state, batch)
        losses.append(float(metrics["loss"]))
    return before, {"params": train_state.params, "batch_stats": train_state.batch_stats}, losses


@pytest.mark.slow
def test_its_loss_falls(trained):
    losses = trained[2]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
def test_a_frozen_layer_of_it_stays_and_the_next_one_learns(trained):
    before, after = (variables["params"]["backbone"]["backbone"] for variables in trained[:2])
    assert set(before) == {"Conv_0", "Conv_1", "Conv_2"}
    np.testing.assert_array_equal(after["Conv_0"]["kernel"], before["Conv_0"]["kernel"])
    assert np.abs(after["Conv_1"]["kernel"] - before["Conv_1"]["kernel"]).max() > 1e-4


@pytest.mark.slow
def test_it_detects(trained):
    mesh = make_mesh(1)
    detections = make_predict(_MODEL, mesh, DetectConfig(conf=1e-9, max_detections=5))(
        place(trained[1], mesh), toy.random_batch(1).images
    )
    assert detections.boxes.shape == (16, 5, 4)
    assert detections.mask.any() and jnp.isfinite(detections.boxes).all()


def test_the_other_neck_takes_it_too():
    model = YOLOX(functools.partial(FPN, OwnBackbone, config=_CONFIG), _HEAD)
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(images.shape)))
    predictions = jax.eval_shape(model.apply, variables, images)
    assert predictions.box_deltas.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 4)
    assert set(variables["params"]["backbone"]) == {"backbone", "out1", "out1_cbl", "out2", "out2_cbl"}
