"""Gathered candidates fit into their slots, and give the same results as all anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax.detection import simota
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.detection.kernels.near_anchors import max_near, over_candidates


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5, 2.5])
@pytest.mark.parametrize("num_boxes", [1, 8, 500])
def test_there_is_a_slot_for_every_anchor_that_is_near_a_box(radius, num_boxes):
    """Box centers at random places, on anchors, between anchors, and half a stride from either."""
    rng = np.random.default_rng(0)
    anchors = make_anchors((256, 256))
    for _ in range(20):
        centers = np.concatenate([rng.uniform(0, 256, (num_boxes, 2)), 4.0 * rng.integers(0, 64, (num_boxes, 2))])
        gt_xyxy_G4 = np.concatenate([centers - 8, centers + 8], axis=1).astype(np.float32)
        num_near = int(simota._near_center(gt_xyxy_G4, anchors, radius).any(axis=0).sum())
        assert num_near <= max_near(2 * num_boxes, len(anchors.strides), radius)


@pytest.mark.parametrize("max_candidates", [30, 40, 100, 300])
def test_a_function_of_the_candidates_alone_equals_that_of_all_anchors(max_candidates):
    rng = np.random.default_rng(0)
    candidate_A = np.zeros(100, bool)
    candidate_A[rng.choice(100, 30, replace=False)] = True
    arrays = {
        "x": jnp.asarray(rng.normal(size=100), jnp.float32),
        "y": jnp.asarray(rng.normal(size=(100, 3)), jnp.float32),
    }

    def function(candidate_A, arrays):
        largest = jnp.where(candidate_A, arrays["x"], -jnp.inf).max()  # depends on all candidates
        return {
            "is_largest": candidate_A & (arrays["x"] == largest),
            "sum": jnp.where(candidate_A, arrays["y"].sum(1), 0),
        }

    found = jax.jit(lambda *x: over_candidates(function, *x, max_candidates))(candidate_A, arrays)
    jax.tree.map(np.testing.assert_array_equal, found, jax.jit(function)(candidate_A, arrays))
    assert found["is_largest"].sum() == 1
