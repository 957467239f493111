"""Detection against a naive NMS, on random boxes and on what the reference found in real photographs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import material
from yolox_jax import boxes
from yolox_jax.detection import nms
from yolox_jax.detection.anchors import decode, make_anchors
from yolox_jax.detection.postprocess import detect
from yolox_jax.types import Predictions

keep_mask = jax.jit(nms.keep_mask)


def naive_nms(boxes_xyxy: np.ndarray, labels: np.ndarray, iou: float, cut: np.ndarray | None = None) -> list[int]:
    """Greedy NMS within each class. Boxes come best first; returns the indices of those that are kept.

    Of a box in `cut`, the share of its own area counts.
    """
    kept: list[int] = []
    for i, (x1, y1, x2, y2) in enumerate(boxes_xyxy):
        for j in kept:
            u1, v1, u2, v2 = boxes_xyxy[j]
            inter = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
            union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter
            whole = union if cut is None or not cut[i] else (x2 - x1) * (y2 - y1)
            if labels[i] == labels[j] and inter > iou * whole:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_nms_keeps_what_a_naive_loop_keeps(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (300, 2))
    boxes_xyxy = np.concatenate([low, low + rng.uniform(10, 50, (300, 2))], axis=1).astype(np.float32)
    labels = rng.integers(0, 3, 300)
    kept = np.flatnonzero(keep_mask(boxes_xyxy, labels, np.ones(300, bool), 0.5))
    expected = naive_nms(boxes_xyxy, labels, 0.5)
    assert 30 < len(expected) < 250
    assert kept.tolist() == expected


@pytest.mark.parametrize("end", [230, 480, 900])
def test_nms_compares_the_leading_boxes_alone_whether_masked_or_cut_ones_are_among_them(end):
    rng = np.random.default_rng(end)
    low = rng.uniform(0, 90, (1000, 2))
    boxes_xyxy = np.concatenate([low, low + rng.uniform(10, 50, (1000, 2))], axis=1).astype(np.float32)
    labels, cut, mask = rng.integers(0, 9, 1000), rng.random(1000) < 0.3, rng.random(1000) < 0.8
    mask[end:] = False
    valid = np.flatnonzero(mask)
    expected = valid[naive_nms(boxes_xyxy[valid], labels[valid], 0.4, cut[valid])]
    assert 0.2 * len(valid) < len(expected) < 0.8 * len(valid)
    found = np.flatnonzero(keep_mask(boxes_xyxy, labels, mask, 0.4, cut))
    assert found.tolist() == expected.tolist()


def test_of_a_chain_of_overlapping_boxes_every_second_one_is_kept():
    # Each overlaps only its two neighbors: a suppressed box suppresses no other.
    low = np.arange(40)[:, None] * np.array([[4.0, 0.0]])
    boxes_xyxy = np.concatenate([low, low + 10], axis=1).astype(np.float32)
    kept = keep_mask(boxes_xyxy, np.zeros(40, int), np.ones(40, bool), 0.4)
    np.testing.assert_array_equal(kept, np.arange(40) % 2 == 0)


def test_masked_boxes_are_not_kept_and_suppress_no_others():
    boxes_xyxy = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    kept = keep_mask(boxes_xyxy, np.zeros(2, int), np.array([False, True]), 0.5)
    np.testing.assert_array_equal(kept, [False, True])


def test_boxes_of_different_classes_do_not_suppress_each_other():
    boxes_xyxy = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    assert keep_mask(boxes_xyxy, np.array([0, 1]), np.ones(2, bool), 0.5).all()


def _random_predictions(seed: int, num_anchors: int, num_classes: int = 4) -> Predictions:
    rng = np.random.default_rng(seed)
    return Predictions(
        box_deltas=jnp.asarray(rng.normal(0, 1, (2, num_anchors, 4)), jnp.float32),
        obj_logits=jnp.asarray(rng.normal(-1, 2, (2, num_anchors)), jnp.float32),
        cls_logits=jnp.asarray(rng.normal(-1, 2, (2, num_anchors, num_classes)), jnp.float32),
    )


@pytest.mark.parametrize("seed", range(3))
def test_detect_equals_decoding_scoring_and_nms_written_out(seed):
    anchors = make_anchors((96, 64))
    predictions = _random_predictions(seed, len(anchors.strides))
    found = detect(predictions, anchors, conf=0.05, iou=0.5, max_detections=200, num_candidates=1000)
    for image in range(2):
        prob = jax.nn.sigmoid(predictions.cls_logits[image])
        score = np.asarray(prob.max(axis=1) * jax.nn.sigmoid(predictions.obj_logits[image]))
        order = np.argsort(-score, kind="stable")
        order = order[score[order] >= 0.05]
        xyxy = np.asarray(boxes.cxcywh_to_xyxy(decode(predictions.box_deltas[image], anchors)))[order]
        labels = np.asarray(prob.argmax(axis=1))[order]
        kept = naive_nms(xyxy, labels, 0.5)
        mask = np.asarray(found.mask[image])
        assert mask.sum() == len(kept) > 10
        np.testing.assert_allclose(found.boxes[image][mask], xyxy[kept], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(found.scores[image][mask], score[order][kept], rtol=1e-5)
        np.testing.assert_array_equal(found.labels[image][mask], labels[kept])


@pytest.mark.parametrize("seed", range(2))
def test_with_multi_label_every_class_of_every_box_above_the_threshold_is_a_candidate(seed):
    anchors = make_anchors((64, 64))
    predictions = _random_predictions(seed, len(anchors.strides))
    found = detect(predictions, anchors, 0.1, 0.5, max_detections=200, num_candidates=400, multi_label=True)
    for image in range(2):
        boxes_xyxy = np.asarray(boxes.cxcywh_to_xyxy(decode(predictions.box_deltas[image], anchors)))
        obj = np.asarray(jax.nn.sigmoid(predictions.obj_logits[image]))
        cls = np.asarray(jax.nn.sigmoid(predictions.cls_logits[image]))
        candidates = [
            (obj[anchor] * cls[anchor, label], label, boxes_xyxy[anchor])
            for anchor in range(len(obj))
            for label in range(cls.shape[1])
            if obj[anchor] * cls[anchor, label] >= 0.1
        ]
        candidates.sort(key=lambda candidate: -candidate[0])
        scores, labels, xyxy = (np.array(column) for column in zip(*candidates, strict=True))
        kept = naive_nms(xyxy, labels, 0.5)
        assert len(set(np.round(xyxy[kept][:, 0], 3))) < len(kept) < 200  # a box with two labels is among them
        mask = np.asarray(found.mask[image])
        np.testing.assert_array_equal(found.labels[image][mask], labels[kept])
        np.testing.assert_allclose(found.scores[image][mask], scores[kept], rtol=1e-5)
        np.testing.assert_allclose(found.boxes[image][mask], xyxy[kept], rtol=1e-5, atol=1e-4)


def test_the_result_has_all_its_slots_even_if_there_are_fewer_anchors():
    anchors = make_anchors((32, 32))
    found = detect(_random_predictions(0, 21), anchors, conf=0.0, iou=0.5, max_detections=100)
    assert found.boxes.shape == (2, 100, 4)
    assert 0 < found.mask.sum(axis=1).max() <= 21


def test_more_detections_than_slots_keeps_the_best():
    anchors = make_anchors((96, 64))
    predictions = _random_predictions(0, len(anchors.strides))
    many = detect(predictions, anchors, 0.01, 0.9, max_detections=100)
    few = detect(predictions, anchors, 0.01, 0.9, max_detections=7)
    np.testing.assert_array_equal(few.scores, many.scores[:, :7])


def test_nothing_above_the_threshold_is_an_empty_mask():
    anchors = make_anchors((64, 64))
    assert not detect(_random_predictions(0, len(anchors.strides)), anchors, 1.1, 0.5, 10).mask.any()


def test_nms_on_real_detections_keeps_what_a_naive_loop_keeps():
    detections = json.loads(material("data/coco_val100/reference_detections_nano.json").read_text())
    by_image: dict[int, list[dict]] = {}
    for detection in detections:
        by_image.setdefault(detection["image_id"], []).append(detection)
    for of_image in list(by_image.values())[:10]:
        of_image.sort(key=lambda detection: -detection["score"])
        xywh = np.array([detection["bbox"] for detection in of_image], np.float32)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        labels = np.array([detection["category_id"] for detection in of_image])
        padded = np.zeros((700, 4), np.float32)
        padded[: len(xyxy)] = xyxy
        padded_labels = np.zeros(700, int)
        padded_labels[: len(xyxy)] = labels
        # A lower threshold than the one they passed, so that many are suppressed.
        kept = keep_mask(padded, padded_labels, np.arange(700) < len(xyxy), 0.3)
        assert np.flatnonzero(kept).tolist() == naive_nms(xyxy, labels, 0.3)
