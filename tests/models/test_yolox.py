"""The networks against the reference's: parameters, raw outputs, input sizes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import GOLDEN, golden, golden_shapes, golden_state_dict
from yolox_jax.models import official_weights, yolox
from yolox_jax.types import Predictions


def _abstract(model: yolox.YOLOX, height: int = 64, width: int = 64):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, height, width, 3))))


def _reference_layout(predictions: Predictions) -> np.ndarray:
    """[B, A, 4 + 1 + C] as the reference gives it: sigmoid on obj and cls, not decoded."""
    return np.concatenate(
        [
            predictions.box_deltas,
            jax.nn.sigmoid(predictions.obj_logits)[..., None],
            jax.nn.sigmoid(predictions.cls_logits),
        ],
        axis=-1,
    )


@pytest.mark.parametrize("name", yolox.VARIANTS)
def test_parameter_counts_are_the_references(name):
    expected = json.loads((GOLDEN / "models.json").read_text())[name]["params"]
    params = _abstract(yolox.create(name, 80))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in yolox.VARIANTS])
def test_raw_outputs_equal_the_references(name):
    arrays = golden("models")
    model = yolox.create(name, 80)
    variables = official_weights.from_state_dict(golden_state_dict(golden_shapes(name)), model)
    images = jnp.asarray(arrays["images_nchw"].transpose(0, 2, 3, 1))
    raw = _reference_layout(jax.jit(model.apply)(variables, images))
    tolerance = 1e-4 if name == "darknet53" else 1e-5
    np.testing.assert_allclose(raw, arrays[f"{name}/raw"], rtol=0, atol=tolerance)
