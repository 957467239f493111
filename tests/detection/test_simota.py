"""SimOTA: the reference's assignments, and properties that hold for any input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from tests.material import golden
from yolox_jax import boxes
from yolox_jax.detection import simota
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.errors import UserError
from yolox_jax.types import Assignment

_NUM_SLOTS = 120
_ARRAYS = golden("assign")
_CASES = sorted({key.split("/")[0] for key in _ARRAYS})

assign = jax.jit(simota.assign)
_assign_over_all_anchors = jax.jit(lambda *arguments: simota.assign(*arguments))  # traced with the plain form only


@dataclasses.dataclass
class Case:
    """Boxes and predictions of one image, with padding slots."""

    gt_xyxy_G4: np.ndarray
    gt_label_G: np.ndarray
    gt_mask_G: np.ndarray
    pred_xyxy_A4: jax.Array
    cls_logit_AC: np.ndarray
    obj_logit_A: np.ndarray
    size_hw: tuple[int, int]

    def assign(self) -> Assignment:
        return assign(
            self.gt_xyxy_G4,
            self.gt_label_G,
            self.gt_mask_G,
            self.pred_xyxy_A4,
            self.cls_logit_AC,
            self.obj_logit_A,
            make_anchors(self.size_hw),
        )


def _golden_case(name: str) -> tuple[Case, dict[str, np.ndarray]]:
    arrays = {key.split("/")[1]: value for key, value in _ARRAYS.items() if key.startswith(f"{name}/")}
    num_boxes = len(arrays["gt_class"])
    gt_xyxy_G4 = np.zeros((_NUM_SLOTS, 4), np.float32)
    gt_label_G = np.zeros(_NUM_SLOTS, np.int32)
    if num_boxes:
        gt_xyxy_G4[:num_boxes] = boxes.cxcywh_to_xyxy(jnp.asarray(arrays["gt_cxcywh"]))
        gt_label_G[:num_boxes] = arrays["gt_class"]
    case = Case(
        gt_xyxy_G4,
        gt_label_G,
        np.arange(_NUM_SLOTS) < num_boxes,
        boxes.cxcywh_to_xyxy(jnp.asarray(arrays["box_cxcywh"])),
        arrays["cls_logit"],
        arrays["obj_logit"],
        tuple(int(side) for side in arrays["hw"]),
    )
    return case, arrays


def _random_case(seed: int, num_boxes: int = 12, size: int = 128, num_classes: int = 5) -> Case:
    rng = np.random.default_rng(seed)
    num_anchors = len(make_anchors((size, size)).strides)
    centers = np.asarray(make_anchors((size, size)).centers)
    gt_center = rng.uniform(0, size, (_NUM_SLOTS, 2))
    gt_size = rng.uniform(4, size / 2, (_NUM_SLOTS, 2))
    pred_size = rng.uniform(4, size / 2, (num_anchors, 2))
    return Case(
        np.concatenate([gt_center - gt_size / 2, gt_center + gt_size / 2], axis=1).astype(np.float32),
        rng.integers(0, num_classes, _NUM_SLOTS).astype(np.int32),
        np.arange(_NUM_SLOTS) < num_boxes,
        jnp.asarray(np.concatenate([centers - pred_size / 2, centers + pred_size / 2], axis=1), jnp.float32),
        rng.normal(-2, 2, (num_anchors, num_classes)).astype(np.float32),
        rng.normal(-2, 2, num_anchors).astype(np.float32),
        (size, size),
    )


@pytest.mark.parametrize("name", _CASES)
def test_every_anchor_is_assigned_as_the_reference_assigns_it(name):
    case, arrays = _golden_case(name)
    result = case.assign()
    positive = arrays["fg"]
    np.testing.assert_array_equal(result.positive, positive)
    np.testing.assert_array_equal(np.asarray(result.gt_index)[positive], arrays["gt_index"][positive])
    np.testing.assert_allclose(np.asarray(result.iou)[positive], arrays["iou"][positive], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*_CASES, *range(4)])
def test_candidates_gathered_into_slots_give_the_assignment_of_all_anchors(name, monkeypatch):
    """A CPU gathers the candidates, as in the other tests; other devices compute over all anchors."""
    case = _golden_case(name)[0] if isinstance(name, str) else _random_case(name)
    gathered = case.assign()
    monkeypatch.setattr(
        simota, "over_candidates", lambda function, candidate_A, arrays, _: function(candidate_A, arrays)
    )
    over_all = _assign_over_all_anchors(*dataclasses.astuple(case)[:-1], make_anchors(case.size_hw))
    jax.tree.map(np.testing.assert_array_equal, gathered, over_all)


@pytest.mark.parametrize("seed", range(4))
def test_the_contents_of_padding_slots_change_nothing(seed):
    case = _random_case(seed)
    before = case.assign()
    rng = np.random.default_rng(100 + seed)
    padding = ~case.gt_mask_G
    case.gt_xyxy_G4[padding] = rng.uniform(-50, 200, (padding.sum(), 4))
    case.gt_label_G[padding] = rng.integers(0, 5, padding.sum())
    after = case.assign()
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize("seed", range(4))
def test_permuting_the_boxes_permutes_the_assignment(seed):
    case = _random_case(seed)
    before = case.assign()
    order = np.random.default_rng(seed).permutation(_NUM_SLOTS)
    case.gt_xyxy_G4, case.gt_label_G = case.gt_xyxy_G4[order], case.gt_label_G[order]
    case.gt_mask_G = case.gt_mask_G[order]
    after = case.assign()
    positive = np.asarray(before.positive)
    assert positive.any()
    np.testing.assert_array_equal(after.positive, positive)
    np.testing.assert_array_equal(order[np.asarray(after.gt_index)[positive]], np.asarray(before.gt_index)[positive])


def test_without_boxes_no_anchor_is_positive():
    result = _random_case(0, num_boxes=0).assign()
    assert not result.positive.any()
    assert not result.iou.any()


def test_every_slot_can_hold_a_box():
    result = _random_case(0, num_boxes=_NUM_SLOTS).assign()
    assert len(np.unique(np.asarray(result.gt_index)[np.asarray(result.positive)])) > 60


def test_a_box_with_no_anchor_near_its_center_is_not_assigned():
    case = _random_case(0, num_boxes=1)
    case.gt_xyxy_G4[0] = (1000, 1000, 1040, 1040)
    assert not case.assign().positive.any()


def test_an_anchor_on_the_edge_of_the_center_region_is_outside():
    # The anchors of stride 32 at x = 16 are exactly 1.5 strides from a center at x = 64.
    near = simota._near_center(jnp.array([[54.0, 6.0, 74.0, 26.0]]), make_anchors((64, 64)), 1.5)
    stride32 = np.asarray(near)[0, -4:]
    np.testing.assert_array_equal(stride32, [False, True, False, True])


def test_the_factored_class_cost_is_the_sum_over_all_classes():
    rng = np.random.default_rng(0)
    cls_logit = rng.normal(0, 30, (50, 7)).astype(np.float32)  # so wide that torch's clamp at −100 matters
    obj_logit = rng.normal(0, 30, 50).astype(np.float32)
    labels = np.arange(7, dtype=np.int32)
    prob = np.sqrt(jax.nn.sigmoid(cls_logit) * jax.nn.sigmoid(obj_logit)[:, None])
    with np.errstate(divide="ignore"):
        log_present, log_absent = np.maximum(np.log(prob), -100), np.maximum(np.log1p(-prob), -100)
    target = np.eye(7, dtype=bool)
    naive = np.array([-np.where(target[g][None], log_present, log_absent).sum(axis=1) for g in labels])
    np.testing.assert_allclose(simota._class_cost(cls_logit, obj_logit, labels), naive, rtol=1e-4, atol=1e-4)


def test_the_defaults_are_those_of_the_base_config():
    assert dataclasses.asdict(simota.SimOtaConfig()) == base.get_config().assignment.to_dict()


@pytest.mark.parametrize(
    ("field", "value"), [("num_candidates", 0), ("center_radius", -1.0), ("iou_weight", float("nan"))]
)
def test_a_number_out_of_range_is_refused_with_its_field(field, value):
    with pytest.raises(UserError, match=f"config.assignment.{field} is {value}: give"):
        simota.SimOtaConfig(**{field: value})


def test_a_mapped_batch_equals_its_images_one_by_one():
    cases = [_random_case(seed, num_boxes=n) for seed, n in enumerate((0, 1, 30))]
    stacked = [
        np.stack([np.asarray(getattr(case, field)) for case in cases])
        for field in ("gt_xyxy_G4", "gt_label_G", "gt_mask_G", "pred_xyxy_A4", "cls_logit_AC", "obj_logit_A")
    ]
    batched = jax.jit(jax.vmap(simota.assign, in_axes=(0,) * 6 + (None,)))(*stacked, make_anchors((128, 128)))
    for i, case in enumerate(cases):
        single = case.assign()
        np.testing.assert_array_equal(batched.positive[i], single.positive)
        np.testing.assert_array_equal(batched.gt_index[i], single.gt_index)


def test_no_array_over_boxes_anchors_and_classes_exists():
    """120 boxes × 8400 anchors × 80 classes would be 323 MB per image."""
    shapes = [(120, 4), (120,), (120,), (8400, 4), (8400, 80), (8400,)]
    dtypes = [jnp.float32, jnp.int32, jnp.bool_, jnp.float32, jnp.float32, jnp.float32]
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    compiled = assign.lower(*arguments, make_anchors((640, 640))).compile()
    bytes_GA = 120 * 8400 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 12 * bytes_GA


@pytest.mark.parametrize("seed", range(3))
def test_with_in_box_candidates_the_assignment_is_that_of_a_naive_loop(seed):
    """The rule of the published weights: a candidate is in a box or near its center, and has no penalty if both."""
    rng = np.random.default_rng(seed)
    config = simota.SimOtaConfig(center_radius=2.5, outside_penalty=1e5, in_box_candidates=True)
    anchors = make_anchors((128, 128))
    num_anchors, num_boxes, num_classes = len(anchors.strides), 5, 3
    low = rng.uniform(0, 70, (num_boxes, 2))
    gt = np.concatenate([low, low + rng.uniform(6, 58, (num_boxes, 2))], axis=1).astype(np.float32)
    labels = rng.integers(0, num_classes, num_boxes)
    centers, strides = np.asarray(anchors.centers), np.asarray(anchors.strides)
    half = rng.uniform(4, 30, (num_anchors, 2))
    pred = np.concatenate([centers - half, centers + half], axis=1).astype(np.float32)
    cls_logits, obj_logits = rng.normal(0, 1, (num_anchors, num_classes)), rng.normal(0, 1, num_anchors)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    cost, iou = np.full((num_boxes, num_anchors), np.inf), np.zeros((num_boxes, num_anchors))
    inside, near = np.zeros_like(iou, bool), np.zeros_like(iou, bool)
    for g, (x0, y0, x1, y1) in enumerate(gt):
        for a, (x, y) in enumerate(centers):
            reach = 2.5 * strides[a]
            inside[g, a] = x0 < x < x1 and y0 < y < y1
            near[g, a] = abs(x - (x0 + x1) / 2) < reach and abs(y - (y0 + y1) / 2) < reach
    candidates = (inside | near).any(axis=0)
    assert (candidates != near.any(axis=0)).any()  # the rule matters here
    for g in range(num_boxes):
        for a in np.flatnonzero(candidates):
            w, h = np.minimum(gt[g, 2:], pred[a, 2:]) - np.maximum(gt[g, :2], pred[a, :2])
            overlap = max(w, 0) * max(h, 0)
            iou[g, a] = overlap / (np.prod(gt[g, 2:] - gt[g, :2]) + np.prod(pred[a, 2:] - pred[a, :2]) - overlap)
            prob = np.sqrt(sigmoid(cls_logits[a]) * sigmoid(obj_logits[a]))
            present = np.arange(num_classes) == labels[g]
            cost[g, a] = -np.where(present, np.log(prob), np.log1p(-prob)).sum() - 3 * np.log(iou[g, a] + 1e-8)
            cost[g, a] += 1e5 * (not (inside[g, a] and near[g, a]))
    taken = np.zeros_like(inside)
    for g in range(num_boxes):
        k = max(1, int(np.sort(iou[g])[-10:].sum()))
        taken[g, np.argsort(cost[g], kind="stable")[:k]] = True
    for a in np.flatnonzero(taken.sum(axis=0) > 1):
        taken[:, a] = np.arange(num_boxes) == cost[:, a].argmin()

    mask = np.ones(num_boxes, bool)
    in_boxes = jax.jit(simota.assign, static_argnames="config")
    found = in_boxes(gt, labels, mask, pred, cls_logits, obj_logits, anchors, config=config)
    np.testing.assert_array_equal(found.positive, taken.any(axis=0))
    positive = np.asarray(found.positive)
    np.testing.assert_array_equal(np.asarray(found.gt_index)[positive], taken.argmax(axis=0)[positive])
