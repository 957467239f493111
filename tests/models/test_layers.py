"""Conv, BatchNorm and upsampling against their definitions, and no platform tuning outside of kernels/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import ScopeParamShapeError

from tests.material import ROOT
from yolox_jax.models import blocks, layers

_MODELS = ROOT / "yolox_jax" / "models"
_PLATFORM_CODE = ("platform_dependent", "optimization_barrier", "custom_vjp", "custom_jvp", "default_backend")


def test_running_variance_is_the_unbiased_one_and_moves_by_three_hundredths():
    x = jnp.asarray(np.random.default_rng(0).normal(5, 2, (1, 2, 3, 1)), jnp.float32)
    module = layers.BatchNorm()
    variables = module.init(jax.random.key(0), x, False)
    _, updated = module.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [0.03 * x.mean()], rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], [0.97 + 0.03 * x.var(ddof=1)], rtol=1e-5)


def test_a_kernel_of_another_shape_is_refused_with_its_path():
    x, conv = jnp.ones((1, 4, 4, 3)), blocks.ConvBlock(2, 1, 1, blocks.BlockConfig())
    variables = conv.init(jax.random.key(0), x, False)
    variables["params"]["conv"]["kernel"] = jnp.ones((1, 1, 5, 2))
    with pytest.raises(ScopeParamShapeError, match='"kernel" in "conv"'):
        conv.apply(variables, x, False)


def test_upsampling_repeats_each_pixel():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(blocks.upsample2(x)[0, :, :, 0], np.kron(x[0, :, :, 0], np.ones((2, 2))))


@pytest.mark.parametrize("path", sorted(_MODELS.glob("*.py")), ids=lambda path: path.name)
def test_only_the_kernels_depend_on_the_platform(path):
    text = path.read_text()
    assert not [word for word in _PLATFORM_CODE if word in text]
