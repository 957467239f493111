"""BatchNorm folded into convolutions: the same predictions, and the weights of the reference's fuse_model."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import ScopeParamNotFoundError
from flax.traverse_util import flatten_dict

from tests.material import golden, golden_shapes, golden_state_dict, material
from tests.training import toy
from yolox_jax.models import yolox
from yolox_jax.models.blocks import BlockConfig
from yolox_jax.models.folding import fold_batch_norm, folded_shapes
from yolox_jax.models.head import Head
from yolox_jax.models.pafpn import PAFPN
from yolox_jax.weights import official


def _golden_variables(name, model):
    return official.from_state_dict(golden_state_dict(golden_shapes(name)), model)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "nano" else pytest.mark.slow) for n in ("nano", "tiny", "darknet53")]
)
def test_the_predictions_are_those_of_the_reference(name):
    arrays, model = golden("models"), yolox.create(name)
    folded = fold_batch_norm(model, _golden_variables(name, model))
    images = jnp.asarray(arrays["images_nchw"].transpose(0, 2, 3, 1))
    found = jax.jit(model.apply)(folded, images)
    raw = jnp.concatenate([found.box_deltas, jax.nn.sigmoid(found.obj_logits)[..., None]], axis=-1)
    tolerance = 1e-4 if name == "darknet53" else 1e-5  # as in test_yolox.py
    np.testing.assert_allclose(raw, arrays[f"{name}/raw"][..., :5], rtol=0, atol=tolerance)
    np.testing.assert_allclose(jax.nn.sigmoid(found.cls_logits), arrays[f"{name}/raw"][..., 5:], rtol=0, atol=tolerance)


def test_the_official_weights_folded_are_those_that_the_reference_fused():
    model = yolox.create("nano")
    variables = official.from_state_dict(official.load_pth(material("weights/yolox_nano_coco.pth")), model)
    folded = official.to_state_dict(fold_batch_norm(model, variables), model)
    fused = official.load_pth(material("weights/yolox_nano_coco_fused.pth"))  # its BatchNorm only adds the bias
    num_blocks = 0
    for name, tensor in folded.items():
        module, leaf = name.rsplit(".", 1)
        is_block = leaf == "bias" and f"{module.removesuffix('.conv')}.bn.bias" in fused
        expected = fused[f"{module.removesuffix('.conv')}.bn.bias" if is_block else name]
        np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-5, err_msg=name)
        num_blocks += is_block
    assert num_blocks == sum(name.endswith("bn.bias") for name in fused) == 104


def test_the_shapes_are_known_without_the_values_and_only_kernels_of_blocks_are_cast():
    model = yolox.create("nano", 3, jnp.bfloat16)
    variables = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), official.abstract_variables(model))
    folded = fold_batch_norm(model, variables)
    shapes = folded_shapes(model, variables)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), folded) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)
    assert list(folded) == ["params"]
    for path, array in flatten_dict(folded["params"]).items():
        is_of_block = path[-2:] == ("conv", "kernel")
        assert array.dtype == (jnp.bfloat16 if is_of_block else jnp.float32), path


@pytest.mark.parametrize(("name", "space_to_depth"), [("nano", False), ("s", True), ("darknet53", False)])
def test_a_block_states_the_shape_of_its_output(name, space_to_depth):
    """Otherwise the network, whose blocks are found without computing anything, would refuse the shapes."""
    model = yolox.create(name, space_to_depth=space_to_depth)
    shapes = folded_shapes(model, official.abstract_variables(model))
    found = jax.eval_shape(model.apply, shapes, jnp.zeros((1, 64, 32, 3)))
    assert found.box_deltas.shape == (1, 8 * 4 + 4 * 2 + 2 * 1, 4)


class _OwnBackbone(nn.Module):
    """Has a convolution and a BatchNorm of Flax under the names that a ConvBlock gives to its own."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> list[jax.Array]:
        x = nn.avg_pool(images / 255, (4, 4), (4, 4))
        levels = []
        for _ in range(3):
            levels.append(x := nn.Conv(8, (3, 3), (2, 2))(x))
        levels[0] = nn.Conv(8, (1, 1), use_bias=False, name="conv")(levels[0])
        levels[0] = nn.BatchNorm(use_running_average=not train, name="bn")(levels[0])
        return levels


def test_another_backbones_own_normalization_stays():
    config = BlockConfig()
    head = functools.partial(Head, num_classes=3, features=8, config=config)
    model = yolox.YOLOX(functools.partial(PAFPN, _OwnBackbone, base_depth=1, config=config), head)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    folded = folded_shapes(model, variables)
    own = folded["params"]["backbone"]["backbone"]
    assert set(own["conv"]) == {"kernel"} and set(own["bn"]) == {"scale", "bias"}
    assert list(flatten_dict(folded["batch_stats"])) == [
        ("backbone", "backbone", "bn", leaf) for leaf in ("mean", "var")
    ]
    assert jax.eval_shape(model.apply, folded, jnp.zeros((1, 64, 64, 3))).box_deltas.shape == (1, 84, 4)


def test_folded_variables_do_not_train():
    folded = folded_shapes(toy.MODEL, jax.eval_shape(toy.create_variables))
    train = functools.partial(toy.MODEL.apply, train=True, mutable=["batch_stats"])
    with pytest.raises(ScopeParamNotFoundError, match='"scale".*"/ConvBlock_0/bn"'):
        jax.eval_shape(train, folded, jnp.zeros((1, 64, 64, 3)))


@pytest.mark.parametrize("name", [pytest.param("nano", marks=pytest.mark.slow), "s"])
def test_every_kernel_that_cudnn_reads_is_stored_in_its_order(name):
    model = yolox.create(name, 3, jnp.bfloat16, space_to_depth=False)
    shapes = folded_shapes(model, official.abstract_variables(model), "gpu")
    text = jax.jit(model.apply).trace(shapes, jnp.zeros((1, 64, 64, 3))).lower(lowering_platforms=("cuda",)).as_text()
    stored = [path for path in flatten_dict(shapes["params"]) if path[-1] == "kernel_OHWI"]
    assert text.count("stablehlo.convolution") == len(stored) > 0
