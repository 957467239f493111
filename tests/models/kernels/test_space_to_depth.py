"""Convolutions, BatchNorm, stages and networks on cells of 2×2 pixels against plain ones."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.kernels.agreement import assert_agree, normal
from yolox_jax.models import yolox
from yolox_jax.models.blocks import BlockConfig, ConvBlock, CSPLayer, spatial_block
from yolox_jax.models.csp_darknet import CSPDarknet, Focus
from yolox_jax.models.kernels import space_to_depth as s2d
from yolox_jax.models.kernels.batch_norm import normalize
from yolox_jax.models.layers import Conv
from yolox_jax.types import Predictions


def test_a_cells_channel_is_4_channels_and_2_rows_and_its_column():
    x = normal(0, 2, 4, 6, 3)
    cells = s2d.space_to_depth(x)
    assert cells.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(cells[:, :, :, 4 * 2 + 2 * 1 + 0], x[:, 1::2, 0::2, 2])
    np.testing.assert_array_equal(s2d.depth_to_space(cells), x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.uint8])
def test_focus_by_slices_is_focus_bit_for_bit(dtype):
    x = (100 * normal(0, 2, 8, 12, 3)).astype(dtype)
    np.testing.assert_array_equal(s2d.focus_by_slices(x), s2d.focus_plain(x))


def test_focus_onto_cells_is_focus_then_space_to_depth():
    x = normal(0, 2, 8, 12, 3)
    plain = s2d.focus(x, "plain")
    np.testing.assert_array_equal(plain[..., 3:6], x[:, 1::2, 0::2])  # bottom left comes second
    np.testing.assert_array_equal(s2d.focus(x, "space_to_depth"), s2d.space_to_depth(plain))


@pytest.mark.parametrize(
    ("size", "stride", "out_layout"),
    [
        (3, 2, "space_to_depth"),
        (3, 2, "plain"),
        *(pytest.param(size, 1, "space_to_depth", marks=pytest.mark.slow) for size in (1, 3, 5)),
        pytest.param(5, 2, "plain", marks=pytest.mark.slow),
    ],
)
def test_a_convolution_of_cells_agrees_with_the_plain_one(size, stride, out_layout):
    assert_agree(
        lambda x, kernel: s2d.conv(s2d.space_to_depth(x), kernel, stride, out_layout),
        lambda x, kernel: s2d.conv_plain(s2d.space_to_depth(x), kernel, stride, out_layout),
        normal(0, 2, 8, 12, 3),
        normal(1, size, size, 3, 5),
    )


def test_batch_norm_of_cells_agrees_with_the_plain_one():
    def on_cells(x, scale, bias):
        y, mean, var = normalize(s2d.space_to_depth(x), scale, bias, 1e-3)
        return s2d.depth_to_space(y) + jax.lax.stop_gradient(mean + var)[None, None, None]

    def plain(x, scale, bias):
        y, mean, var = normalize(x, scale, bias, 1e-3)
        return y + jax.lax.stop_gradient(mean + var)[None, None, None]

    assert_agree(on_cells, plain, normal(0, 2, 4, 6, 5), normal(1, 5), normal(2, 5))


class _FirstStages(nn.Module):
    """Stem, first stage and the convolution after it, as CSPDarknet joins them."""

    layout: s2d.Layout

    @nn.compact
    def __call__(self, images, train):
        config = BlockConfig(layout=self.layout)
        x = Focus(2, config, name="stem")(images, train)
        x = spatial_block(4, 2, config, name="down")(x, train)
        x = CSPLayer(4, 1, True, config, name="stage")(x, train)
        return ConvBlock(6, 3, 2, BlockConfig(), in_layout=self.layout, name="next")(x, train)


@pytest.mark.slow
def test_in_inference_first_stages_on_cells_have_the_parameters_and_outputs_of_plain_ones():
    images = 100 * normal(0, 1, 32, 48, 3)
    variables = jax.jit(lambda x: _FirstStages("plain").init(jax.random.key(0), x, False))(images)
    on, off = (
        jax.jit(functools.partial(_FirstStages(layout).apply, train=False))(variables, images)
        for layout in ("space_to_depth", "plain")
    )
    np.testing.assert_allclose(on, off, rtol=1e-3, atol=1e-4)


class _Head(nn.Module):
    """One convolution for each level; the network's own head takes long to compile."""

    @nn.compact
    def __call__(self, levels, train):
        raw = jnp.concatenate([Conv(7)(level).reshape(len(level), -1, 7) for level in levels], axis=1)
        return Predictions(raw[..., :4], raw[..., 4], raw[..., 5:])


@pytest.mark.slow
def test_in_training_predictions_statistics_and_gradients_agree_with_it_on_and_off():
    images = 255 * jnp.asarray(np.random.default_rng(0).random((4, 64, 64, 3)), jnp.float32)
    off, on = (
        yolox.YOLOX(functools.partial(CSPDarknet, 4, 1, BlockConfig(), choice), _Head) for choice in (False, True)
    )
    variables = jax.jit(off.init)(jax.random.key(0), images)

    def run(model):
        def loss(params):
            changed = {"params": params, "batch_stats": variables["batch_stats"]}
            predictions, updated = model.apply(changed, images, train=True, mutable=["batch_stats"])
            return sum(jnp.square(x).mean() for x in jax.tree.leaves(predictions)), (predictions, updated)

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    def compare(ours, expected):  # thirty BatchNorms amplify the rounding of single numbers
        assert np.linalg.norm(ours - expected) <= 1e-3 * np.linalg.norm(expected)

    jax.tree.map(compare, run(on), run(off))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(("platform", "on"), [("cpu", False), ("gpu", False), ("tpu", True)])
def test_auto_is_on_for_a_tpu_only_with_any_dtype(monkeypatch, platform, on, dtype):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert s2d.choose_layout("auto", 32, depthwise=False) == ("space_to_depth" if on else "plain")
    # The stem's input: 3 channels by Focus, and by cells.
    assert _stem_depth(yolox.create("s", dtype=dtype)) == (48 if on else 12)


@pytest.mark.parametrize(("name", "depth"), [("nano", 12), ("tiny", 48), ("s", 48), ("m", 12), ("l", 12), ("x", 12)])
def test_only_a_narrow_dense_stem_is_held_in_cells(name, depth):
    assert _stem_depth(yolox.create(name, space_to_depth=True)) == depth


class _StemEnds(Exception):
    """Ends the trace of a network behind the stem's convolution: the rest takes a second."""


def _stem_depth(model: yolox.YOLOX) -> int:
    """Number of input channels of the stem's convolution. Asserts that its kernel has the plain network's shape."""

    def look(call, args, kwargs, context):
        outputs = call(*args, **kwargs)
        if context.module.path == ("backbone", "backbone", "stem", "conv", "conv"):
            raise _StemEnds(args[0].shape[-1], context.module.variables["params"]["kernel"].shape)
        return outputs

    def init():
        with nn.intercept_methods(look):
            return model.init(jax.random.key(0), jnp.zeros((1, 64, 96, 3)))

    with pytest.raises(_StemEnds) as ended:
        jax.eval_shape(init)
    depth, kernel_shape = ended.value.args
    assert kernel_shape[:3] == (3, 3, 12)
    return depth
