"""Detection by oneDNN on a CPU."""

import re

import jax
import numpy as np
import pytest

from tests.onednn import needs_onednn
from yolox_jax.inference.predict import DetectConfig, compile_predict, make_predict
from yolox_jax.mesh import make_mesh, place
from yolox_jax.models import yolox
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.training import state

_CONFIG = DetectConfig(conf=0.0, max_detections=20, num_candidates=40)


@pytest.mark.slow
@needs_onednn
def test_detections_are_those_of_xla_and_bias_and_activation_are_computed_with_the_convolution():
    mesh, images = make_mesh(1), np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    start = state.init_variables(yolox.create("nano", 3), seed=0)
    found = {}
    for cpu_kernels in ("onednn", "xla"):
        model = yolox.create("nano", 3, cpu_kernels=cpu_kernels)
        variables = fold_batch_norm(model, start, "cpu")
        compiled = compile_predict(make_predict(model, mesh, _CONFIG), variables, (64, 64), 2, cpu_kernels)
        found[cpu_kernels] = jax.device_get(compiled(place(variables, mesh), images))
        fused = re.findall(r'"__onednn\$convolution".*?"ops":\[([^]]*)\]', compiled.as_text())
        assert bool(fused) == (cpu_kernels == "onednn") and all("SWISH" in each for each in fused)
    ours, expected = found["onednn"], found["xla"]
    np.testing.assert_allclose(ours.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(ours.scores, expected.scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ours.labels, expected.labels)
