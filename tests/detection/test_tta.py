"""Test-time augmentation maps the predictions for each view back to the boxes of the original image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax.detection import tta
from yolox_jax.detection.anchors import decode, encode, make_anchors
from yolox_jax.types import Predictions

_SIZE = (96, 64)


def _oracle(boxes_cxcywh_N4, size_hw):
    """Raw predictions that decode to these boxes at the first anchors, and the anchors."""
    anchors = make_anchors(size_hw)
    wanted_A4 = np.resize(np.asarray(boxes_cxcywh_N4, np.float32), (len(anchors.strides), 4))
    logits_A = jnp.arange(len(anchors.strides), dtype=jnp.float32)
    deltas_A4 = encode(jnp.asarray(wanted_A4), anchors)
    return Predictions(deltas_A4[None], logits_A[None], logits_A[None, :, None]), anchors


@pytest.fixture
def boxes():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(5, 60, (7, 2)), rng.uniform(4, 30, (7, 2))], axis=1)


def test_boxes_of_the_mirrored_image_come_back(boxes):
    mirrored = boxes * np.array([-1, 1, 1, 1]) + np.array([_SIZE[1], 0, 0, 0])
    predictions, anchors = _oracle(mirrored, _SIZE)
    found = decode(tta.unmirror(predictions).box_deltas, tta.unmirror_anchors(anchors, _SIZE[1]))[0]
    np.testing.assert_allclose(found[:7], boxes, rtol=1e-5, atol=1e-4)


def test_boxes_of_the_resized_image_come_back(boxes):
    predictions, anchors = _oracle(boxes * 2, (2 * _SIZE[0], 2 * _SIZE[1]))
    found = decode(predictions.box_deltas, tta.unscale(anchors, 2.0))[0]
    np.testing.assert_allclose(found[:7], boxes, rtol=1e-5, atol=1e-4)


def test_joined_views_keep_each_box_with_its_scores(boxes):
    first, second = _oracle(boxes, _SIZE), _oracle(boxes[::-1], (64, 64))
    both = zip(first, second, strict=True)
    predictions, anchors = tta.join(next(both)), tta.join_anchors(next(both))
    num_first = len(first[1].strides)
    assert predictions.obj_logits.shape == predictions.box_deltas.shape[:2] == (1, len(anchors.strides))
    for part, (alone, own) in ((slice(num_first), first), (slice(num_first, None), second)):
        of_part = jax.tree.map(lambda x, part=part: x[:, part], predictions)
        jax.tree.map(np.testing.assert_array_equal, of_part, alone)
        np.testing.assert_allclose(
            decode(predictions.box_deltas, anchors)[:, part], decode(alone.box_deltas, own), rtol=1e-6
        )
