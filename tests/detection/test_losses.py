"""The loss and its gradients against the reference's, and against broken inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import golden, nano_of_seven_classes
from yolox_jax.boxes import cxcywh_to_xyxy
from yolox_jax.detection import losses
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.types import Predictions
from yolox_jax.weights import official

_LOSSES = {
    "loss": "total_loss",
    "loss_iou": "iou_loss",
    "loss_obj": "conf_loss",
    "loss_cls": "cls_loss",
    "loss_l1": "l1_loss",
    "num_fg_per_gt": "num_fg",
}


@pytest.fixture(scope="module")
def arrays():
    return golden("losses")


@pytest.fixture(scope="module")
def loss_and_gradients(arrays):
    """Both cases through one compiled program: the L1 weight is an argument."""
    model, variables = nano_of_seven_classes()

    @jax.jit
    def run(images, labels, l1_weight):
        def loss_fn(params):
            variables_now = {"params": params, "batch_stats": variables["batch_stats"]}
            predictions, updated = model.apply(variables_now, images, train=True, mutable=["batch_stats"])
            anchors = make_anchors(images.shape[1:3])
            gt_xyxy = cxcywh_to_xyxy(labels[..., 1:])
            gt_label, gt_mask = labels[..., 0].astype(jnp.int32), labels.sum(axis=2) > 0
            loss, metrics = losses.detection_loss(predictions, anchors, gt_xyxy, gt_label, gt_mask, l1_weight)
            return loss, (metrics, updated["batch_stats"])

        gradients, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(variables["params"])
        return metrics, {"params": gradients, "batch_stats": batch_stats}

    answers = {}
    for case, l1_weight in (("nol1", 0.0), ("l1", 1.0)):
        images = jnp.asarray(arrays[f"{case}/images_nchw"].transpose(0, 2, 3, 1))
        metrics, tree = run(images, jnp.asarray(arrays[f"{case}/labels"]), l1_weight)
        answers[case] = metrics, official.to_state_dict(tree, model)
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("case", ["nol1", "l1"])
@pytest.mark.parametrize("name", _LOSSES)
def test_losses_equal_the_references(arrays, loss_and_gradients, case, name):
    metrics, _ = loss_and_gradients[case]
    np.testing.assert_allclose(metrics[name], arrays[f"{case}/{_LOSSES[name]}"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["nol1", "l1"])
def test_every_parameters_gradient_norm_equals_the_references(arrays, loss_and_gradients, case):
    _, tensors = loss_and_gradients[case]
    expected = {key.split("/")[2]: value for key, value in arrays.items() if key.startswith(f"{case}/gradnorm/")}
    assert len(expected) > 300
    for name, norm in expected.items():
        np.testing.assert_allclose(np.linalg.norm(tensors[name].astype(np.float64)), norm, rtol=1e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["nol1", "l1"])
def test_whole_gradients_and_batch_norm_statistics_equal_the_references(arrays, loss_and_gradients, case):
    _, tensors = loss_and_gradients[case]
    for key, value in arrays.items():
        if key.startswith(f"{case}/grad/"):
            error = np.abs(tensors[key.split("/")[2]] - value).max() / np.abs(value).max()
            assert error < 1e-3, key
        elif key.startswith(f"{case}/stats/"):
            np.testing.assert_allclose(tensors[key.split("/")[2]], value, rtol=1e-5, err_msg=key)


def _random_predictions(seed: int, size: int = 64, num_classes: int = 3, dtype=jnp.float32) -> Predictions:
    rng = np.random.default_rng(seed)
    num_anchors = len(make_anchors((size, size)).strides)
    arrays = (
        rng.normal(0, 1, (2, num_anchors, 4)),
        rng.normal(-2, 1, (2, num_anchors)),
        rng.normal(-2, 1, (2, num_anchors, num_classes)),
    )
    return Predictions(*(jnp.asarray(array, dtype) for array in arrays))


def _loss(predictions: Predictions, gt_mask=True, l1_weight=1.0):
    gt_boxes = jnp.array([[[8.0, 8, 40, 40], [20, 30, 60, 50]]] * 2)
    gt_labels = jnp.array([[0, 2]] * 2)
    mask = jnp.full((2, 2), gt_mask)
    return losses.detection_loss(predictions, make_anchors((64, 64)), gt_boxes, gt_labels, mask, l1_weight)


def test_a_batch_without_boxes_learns_only_that_there_is_nothing():
    loss, metrics = _loss(_random_predictions(0), gt_mask=False)
    assert metrics["loss_iou"] == metrics["loss_cls"] == metrics["loss_l1"] == metrics["num_fg_per_gt"] == 0
    np.testing.assert_allclose(loss, jax.nn.softplus(_random_predictions(0).obj_logits).sum(), rtol=1e-6)


def test_a_runaway_box_of_an_anchor_without_object_leaves_the_gradient_finite():
    predictions = _random_predictions(0)
    runaway = predictions.replace(box_deltas=predictions.box_deltas.at[0, -1, 2:].set(1000.0))
    gradients = jax.grad(lambda p: _loss(p)[0])(runaway)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_loss_is_float32_whatever_the_network_computes_in():
    rough = _random_predictions(0, dtype=jnp.bfloat16)
    loss, metrics = _loss(rough)
    exact, _ = _loss(jax.tree.map(lambda x: x.astype(jnp.float32), rough))
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
    assert all(value.dtype == jnp.float32 for value in (loss, *metrics.values()))
