"""The loss and its gradients, compared with the reference's and with naive formulas, and on broken inputs."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from tests.material import golden, nano_of_seven_classes
from yolox_jax.boxes import cxcywh_to_xyxy
from yolox_jax.detection import losses
from yolox_jax.detection.anchors import decode, make_anchors
from yolox_jax.detection.losses import LossConfig
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.errors import UserError
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
    """Metrics and gradients, without and with L1; one compiled program, since the L1 weight is an argument."""
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


@pytest.mark.parametrize("case", ["nol1", "l1"])
@pytest.mark.parametrize("name", _LOSSES)
def test_losses_equal_the_references(arrays, loss_and_gradients, case, name):
    metrics, _ = loss_and_gradients[case]
    np.testing.assert_allclose(metrics[name], arrays[f"{case}/{_LOSSES[name]}"], rtol=1e-5)


@pytest.mark.parametrize("case", ["nol1", "l1"])
def test_every_parameters_gradient_norm_equals_the_references(arrays, loss_and_gradients, case):
    _, tensors = loss_and_gradients[case]
    expected = {key.split("/")[2]: value for key, value in arrays.items() if key.startswith(f"{case}/gradnorm/")}
    assert len(expected) > 300
    for name, norm in expected.items():
        np.testing.assert_allclose(np.linalg.norm(tensors[name].astype(np.float64)), norm, rtol=1e-3, err_msg=name)


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


_GT_XYXY = jnp.array([[[8.0, 8, 40, 40], [20, 30, 60, 50]]] * 2)
_GT_LABELS = jnp.array([[0, 2]] * 2)
_WEIGHTED = LossConfig(2.0, 3.0, 0.25, 7.0)


@functools.partial(jax.jit, static_argnames="config")  # operation by operation, it takes ten times as long
def _loss(predictions: Predictions, gt_mask=True, l1_weight=1.0, config: LossConfig = LossConfig()):
    ground_truth = _GT_XYXY, _GT_LABELS, jnp.full((2, 2), gt_mask)
    return losses.detection_loss(predictions, make_anchors((64, 64)), *ground_truth, l1_weight, loss_config=config)


@pytest.mark.slow
def test_without_boxes_only_the_objectness_loss_is_left():
    loss, metrics = _loss(_random_predictions(0), gt_mask=False)
    assert metrics["loss_iou"] == metrics["loss_cls"] == metrics["loss_l1"] == metrics["num_fg_per_gt"] == 0
    np.testing.assert_allclose(loss, jax.nn.softplus(_random_predictions(0).obj_logits).sum(), rtol=1e-6)


def test_a_huge_box_of_a_negative_anchor_leaves_the_gradient_finite():
    predictions = _random_predictions(0)
    huge = predictions.replace(box_deltas=predictions.box_deltas.at[0, -1, 2:].set(1000.0))
    gradients = jax.grad(lambda p: _loss(p)[0])(huge)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_the_loss_is_float32_for_any_compute_dtype():
    rough = _random_predictions(0, dtype=jnp.bfloat16)
    loss, metrics = _loss(rough)
    exact, _ = _loss(jax.tree.map(lambda x: x.astype(jnp.float32), rough))
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
    assert all(value.dtype == jnp.float32 for value in (loss, *metrics.values()))


def test_no_order_of_adding_changes_the_gradient_on_a_gpu():
    """A scatter that adds floats has an order, which a GPU leaves open; whole numbers have the same sum in any."""
    gradients = jax.jit(jax.grad(lambda predictions: _loss(predictions)[0])).trace(_random_predictions(0))
    text = gradients.lower(lowering_platforms=("cuda",)).as_text()
    kinds = re.findall(r'"stablehlo.scatter"\(.*?\) -> tensor<[\dx]*x([a-z]+)\d+>', text, re.DOTALL)
    assert len(kinds) == text.count('"stablehlo.scatter"') > 0
    assert "f" not in kinds


def test_the_defaults_are_those_of_the_base_config():
    assert dataclasses.asdict(LossConfig()) == base.get_config().loss.to_dict()


@pytest.mark.slow
def test_the_sums_of_two_halves_of_a_batch_add_up_to_those_of_the_whole():
    anchors, mask = make_anchors((64, 64)), jnp.array([[True, False], [True, True]])

    loss_sums = jax.jit(functools.partial(losses.loss_sums, l1_weight=1.0))

    def sums(part):
        predictions = jax.tree.map(lambda x: x[part], _random_predictions(0))
        return loss_sums(predictions, anchors, *(x[part] for x in (_GT_XYXY, _GT_LABELS, mask)))

    whole, halves = sums(slice(None)), jax.tree.map(jnp.add, sums(slice(0, 1)), sums(slice(1, 2)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), halves, whole)
    assert whole.counts["num_gt"] == 3


def test_each_weight_of_the_config_multiplies_its_own_term():
    predictions = _random_predictions(0)
    _, default = _loss(predictions, l1_weight=0.5)
    loss, metrics = _loss(predictions, l1_weight=0.5, config=_WEIGHTED)
    for name, factor in (("loss_iou", 2 / 5), ("loss_obj", 3), ("loss_cls", 0.25), ("loss_l1", 7)):
        np.testing.assert_allclose(metrics[name], factor * default[name], rtol=1e-6)
        assert metrics[name] > 0
    np.testing.assert_allclose(loss, sum(metrics[f"loss_{name}"] for name in ("iou", "obj", "cls", "l1")), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iou_type": "ciou"}, "config.loss.iou_type is 'ciou': choose one of iou, giou"),
        ({"cls_weight": -1.0}, "config.loss.cls_weight is -1.0: give a finite number of 0 or more"),
        ({"l1_weight": float("nan")}, "config.loss.l1_weight is nan: give a finite number of 0 or more"),
    ],
)
def test_an_unknown_iou_type_or_an_impossible_weight_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        LossConfig(**change)


def _naive_box_loss(pred_cxcywh: np.ndarray, target_cxcywh: np.ndarray, iou_type: str) -> float:
    """The formula of the reference's IOUloss for one pair of boxes, with Python's float64."""
    (px1, py1, px2, py2), (tx1, ty1, tx2, ty2) = (
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (pred_cxcywh, target_cxcywh)
    )
    inter = max(0, min(px2, tx2) - max(px1, tx1)) * max(0, min(py2, ty2) - max(py1, ty1))
    union = (px2 - px1) * (py2 - py1) + (tx2 - tx1) * (ty2 - ty1) - inter
    if iou_type == "iou":
        return 1 - (inter / union) ** 2
    hull = (max(px2, tx2) - min(px1, tx1)) * (max(py2, ty2) - min(py1, ty1))
    return 1 - (inter / union - (hull - union) / hull)


@pytest.mark.parametrize("iou_type", ["iou", "giou"])
def test_the_box_loss_and_its_gradient_equal_a_naive_formula_and_its_finite_differences(iou_type):
    rng = np.random.default_rng(0)
    pred, target = (np.concatenate([rng.uniform(0, 40, (60, 2)), rng.uniform(5, 40, (60, 2))], 1) for _ in range(2))
    pred[:3] = [[20, 20, 4, 6], [20, 20, 50, 60], [200, 20, 10, 10]]  # inside, around, and far from …
    target[:3] = [[21, 22, 30, 31], [21, 22, 30, 31], [20, 20, 10, 12]]  # … these

    def total(boxes):
        return losses._box_loss(boxes, jnp.asarray(target, jnp.float32), iou_type).sum()

    box_loss = jax.jit(losses._box_loss, static_argnames="iou_type")
    ours = box_loss(*(jnp.asarray(x, jnp.float32) for x in (pred, target)), iou_type=iou_type)
    naive = [_naive_box_loss(*pair, iou_type) for pair in zip(pred, target, strict=True)]
    np.testing.assert_allclose(ours, naive, rtol=1e-5, atol=1e-6)

    gradient, step = jax.jit(jax.grad(total))(jnp.asarray(pred, jnp.float32)), 1e-5
    for i, (box, other) in enumerate(zip(pred, target, strict=True)):
        for axis, offset in enumerate(step * np.eye(4)):
            up, down = (_naive_box_loss(box + sign * offset, other, iou_type) for sign in (1, -1))
            assert gradient[i, axis] == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-5), (i, axis)


@pytest.mark.parametrize("iou_type", ["iou", "giou"])
def test_the_iou_term_is_the_weighted_mean_of_the_box_loss_over_positive_anchors(iou_type):
    predictions, anchors = _random_predictions(0), make_anchors((64, 64))
    _, metrics = _loss(predictions, config=dataclasses.replace(_WEIGHTED, iou_type=iou_type))
    assign = jax.jit(functools.partial(losses.assign, config=SimOtaConfig()))
    values = []
    for image in range(2):
        of_image = jax.tree.map(lambda x, i=image: x[i], predictions)
        ground_truth = _GT_XYXY[image], _GT_LABELS[image], jnp.ones(2, bool)
        assignment = assign(of_image, anchors, *ground_truth)
        pred_cxcywh = np.asarray(decode(of_image.box_deltas, anchors), np.float64)
        for anchor in np.flatnonzero(assignment.positive):
            x1, y1, x2, y2 = np.asarray(_GT_XYXY[image, assignment.gt_index[anchor]], np.float64)
            target = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
            values.append(_naive_box_loss(pred_cxcywh[anchor], target, iou_type))
    assert len(values) == metrics["num_fg"] > 2
    np.testing.assert_allclose(metrics["loss_iou"], 2.0 * np.mean(values), rtol=1e-5)
