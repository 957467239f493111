"""FLOPs of lowered programs, against loops over the products, and against the TPU compiler's count."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax.models import yolox
from yolox_jax.tools.plan import compiling
from yolox_jax.tools.plan.chips import parse_topology
from yolox_jax.tools.plan.flops import count_flops
from yolox_jax.weights.official import abstract_variables

_NHWC = ("NHWC", "HWIO", "NHWC")


def _lowered(function, *shapes):
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).as_text()


def _products_by_loop(size, taps, stride, pad):
    """Along one axis: pairs of an output and a tap that sees a pixel of the image."""
    num_outputs = (size + 2 * pad - taps) // stride + 1
    return sum(0 <= out * stride + tap - pad < size for out in range(num_outputs) for tap in range(taps))


@pytest.mark.parametrize(("size", "taps", "stride", "groups"), [(8, 3, 1, 1), (9, 3, 2, 1), (8, 5, 2, 2), (7, 1, 1, 4)])
def test_a_convolution_counts_the_products_of_pixels(size, taps, stride, groups):
    def conv(x, kernel):
        pads = [(taps // 2, taps // 2)] * 2
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=_NHWC, feature_group_count=groups
        )

    pairs = _products_by_loop(size, taps, stride, taps // 2)
    expected = 2 * 3 * pairs**2 * (4 // groups) * 12
    shapes = (3, size, size, 4), (taps, taps, 4 // groups, 12)
    assert count_flops(_lowered(conv, *shapes)) == expected

    def loss(x, kernel):
        return jnp.sum(conv(x, kernel) ** 2)

    # Each product of the forward pass is one of each gradient, also where the gradient of a stride has gaps.
    assert count_flops(_lowered(jax.grad(loss, (0, 1)), *shapes)) == 3 * expected


def test_a_matrix_product_counts_by_its_contracted_axes():
    assert count_flops(_lowered(lambda x, y: x @ y, (5, 7), (7, 11))) == 2 * 5 * 7 * 11
    batched = _lowered(lambda x, y: jnp.einsum("bik,bjk->bij", x, y), (3, 5, 7), (3, 11, 7))
    assert count_flops(batched) == 2 * 3 * 5 * 11 * 7


def test_a_function_counts_at_each_call_and_a_loop_once():
    square = jax.jit(lambda x: x @ x)
    assert count_flops(_lowered(lambda x: square(square(x)), (4, 4))) == 2 * 2 * 4**3
    assert count_flops(_lowered(lambda x: lax.fori_loop(0, 9, lambda _, y: y @ y, x), (4, 4))) == 2 * 4**3


def test_only_the_branch_of_the_platform_counts():
    def by_platform(x):
        return lax.platform_dependent(x, cpu=lambda x: x @ x, default=lambda x: x @ x @ x)

    assert count_flops(_lowered(by_platform, (4, 4))) == 2 * 4**3


def test_a_text_of_another_form_is_an_error():
    with pytest.raises(ValueError, match="prints StableHLO in another form"):
        count_flops("func.func public @main() {\n  %0 = stablehlo.dot_general %a, %b : somehow\n}")


@pytest.mark.slow
def test_the_count_is_that_of_the_tpus_compiler():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip('needs libtpu: pip install "jax[tpu]"')
    model = yolox.create("tiny", 80, jnp.bfloat16, space_to_depth=True)
    on_chip = NamedSharding(compiling.make_topology_mesh(parse_topology("v5e:1x1")), P())
    # A smaller batch is divided over the width of images, and the compiler counts what the parts have in common twice.
    images = jax.ShapeDtypeStruct((16, 128, 128, 3), jnp.float32, sharding=on_chip)
    variables = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on_chip), abstract_variables(model)
    )
    lowered = jax.jit(functools.partial(model.apply, train=False)).lower(variables, images)
    # Its count has elementwise operations too.
    assert count_flops(lowered.as_text()) == pytest.approx(compiling.compile_for_chip(lowered).flops, rel=0.03)
