"""Matching, precision-recall curves and mistakes, compared with naive loops and with COCO's AP50."""

import numpy as np
import pytest

from tests.evaluation.random_boxes import random_case
from yolox_jax.evaluation import coco_ap
from yolox_jax.evaluation.ap_result import UNDEFINED
from yolox_jax.evaluation.image_boxes import by_image
from yolox_jax.evaluation.matching import match, match_classes
from yolox_jax.evaluation.mistakes import confusion_matrix, find_mistakes
from yolox_jax.evaluation.precision_recall import Curve, curves

NUM_CLASSES = 4


@pytest.fixture(scope="module", params=range(4))
def case(request):
    ground_truth, detections = random_case(request.param)
    images = by_image(ground_truth, detections)
    return ground_truth, detections, images, [match_classes(image) for image in images]


def _naive_match(iou_DG, crowd_G, min_iou):
    taken, answer = set(), []
    for iou_G in iou_DG.tolist():
        best = None
        for crowd in (False, True):
            for box, iou in enumerate(iou_G):
                if best is not None and crowd and not crowd_G[best]:
                    break
                allowed = bool(crowd_G[box]) == crowd and box not in taken and iou >= min_iou
                if allowed and (best is None or iou >= iou_G[best]):
                    best = box
        if best is not None and not crowd_G[best]:
            taken.add(best)
        answer.append(best)
    return answer


@pytest.mark.parametrize("seed", range(20))
def test_each_detection_is_matched_with_the_box_that_a_naive_loop_chooses(seed):
    rng = np.random.default_rng(seed)
    iou_DG = np.round(rng.random((15, 6)), 1)  # rounded, so that many are equal
    crowd_G = rng.random(6) < 0.3
    index_D, matched_D = match(iou_DG, crowd_G, 0.4)
    expected = _naive_match(iou_DG, crowd_G, 0.4)
    assert [int(i) if m else None for i, m in zip(index_D, matched_D, strict=True)] == expected


def test_the_mean_interpolated_precision_of_a_class_equals_cocos_ap50(case):
    ground_truth, detections, images, matches = case
    _, per_class = curves(images, matches, NUM_CLASSES)
    for ours, cocos in zip(per_class, coco_ap.compute_ap(ground_truth, detections).per_class, strict=True):
        assert ours.ap() is None if cocos.AP50 == UNDEFINED else ours.ap() == pytest.approx(cocos.AP50, abs=1e-9)
        assert ours.num_boxes == cocos.num_boxes


def test_only_the_best_hundred_detections_of_a_class_in_an_image_count_as_in_coco():
    ground_truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    wrong = [{"image_id": 1, "category_id": 1, "bbox": [20, 20, 5, 5], "score": 0.9} for _ in range(100)]
    right = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.1}
    images = by_image(ground_truth, [*wrong, right])
    matches = [match_classes(image) for image in images]
    assert curves(images, matches, 1)[0].ap() == 0 == coco_ap.compute_ap(ground_truth, [*wrong, right]).stats["AP50"]
    images = by_image(ground_truth, [*wrong[1:], right])
    assert curves(images, [match_classes(image) for image in images], 1)[0].ap() == pytest.approx(0.01)


def test_precision_and_recall_at_a_threshold_equal_those_of_counted_mistakes(case):
    _, _, images, matches = case
    all_classes, _ = curves(images, matches, NUM_CLASSES)
    for threshold in (0.0, 0.3, 0.75, 1.1):
        correct = wrong = missed = 0
        for image, match_ in zip(images, matches, strict=True):
            of_image = find_mistakes(image, match_, threshold)
            assert not (of_image.true_positive_D & of_image.false_positive_D).any()
            correct += of_image.true_positive_D.sum()
            wrong += of_image.false_positive_D.sum()
            missed += of_image.missed_G.sum()
        point = all_classes.at(threshold)
        assert correct + missed == all_classes.num_boxes
        assert point.precision == pytest.approx(correct / (correct + wrong) if correct + wrong else 1)
        assert point.recall == pytest.approx(correct / (correct + missed))
        assert point.f1 == pytest.approx(2 * correct / (2 * correct + wrong + missed))


def test_dropping_detections_below_the_threshold_before_matching_changes_no_mistake(case):
    ground_truth, detections, images, matches = case
    fewer = by_image(ground_truth, [d for d in detections if d["score"] >= 0.5])
    for image, match_, of_fewer in zip(images, matches, fewer, strict=True):
        ours, again = find_mistakes(image, match_, 0.5), find_mistakes(of_fewer, match_classes(of_fewer), 0.5)
        np.testing.assert_array_equal(ours.missed_G, again.missed_G)
        assert (ours.true_positive_D.sum(), ours.count) == (again.true_positive_D.sum(), again.count)


def test_no_threshold_has_a_larger_f1_than_the_best(case):
    _, _, images, matches = case
    all_classes, per_class = curves(images, matches, NUM_CLASSES)
    for curve in (all_classes, *per_class):
        thresholds = sorted(set(curve.scores.tolist()))
        assert curve.best().f1 == max((curve.at(threshold).f1 for threshold in thresholds), default=0)


def test_a_curve_without_detections_is_defined():
    empty = Curve(np.zeros(0), np.zeros(0), np.zeros(0), num_boxes=3)
    assert empty.ap() == 0
    assert empty.best() == (1.0, 1.0, 0.0, 0.0)


def test_the_confusion_matrix_counts_every_box_and_detection_once(case):
    _, _, images, matches = case
    for threshold in (0.0, 0.5):
        counts = confusion_matrix(images, matches, NUM_CLASSES, threshold)
        boxes = np.zeros(NUM_CLASSES, int)
        detected = np.zeros(NUM_CLASSES, int)
        correct = np.zeros(NUM_CLASSES, int)
        for image, match_ in zip(images, matches, strict=True):
            of_image = find_mistakes(image, match_, threshold)
            counted_D = of_image.true_positive_D | of_image.false_positive_D
            np.add.at(boxes, image.gt_label_G[~image.crowd_G], 1)
            np.add.at(detected, image.pred_label_D[counted_D], 1)
            np.add.at(correct, image.pred_label_D[of_image.true_positive_D], 1)
        np.testing.assert_array_equal(counts[:-1].sum(axis=1), boxes)
        np.testing.assert_array_equal(counts[:, :-1].sum(axis=0), detected)
        np.testing.assert_array_equal(np.diag(counts)[:-1], correct)
        assert counts[-1, -1] == 0


def test_confused_classes_a_missed_box_and_a_false_positive_are_counted_in_their_cells():
    def box(category_id, x, **more):
        return {"image_id": 1, "category_id": category_id, "bbox": [x, 0, 10, 10], **more}

    ground_truth = {
        "images": [{"id": 1}],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2)],
        "annotations": [box(1, 0, id=1), box(2, 20, id=2), box(2, 40, id=3), box(1, 80, id=4, iscrowd=1)],
    }
    detections = [box(1, 0, score=0.9), box(1, 21, score=0.8), box(2, 60, score=0.7), box(1, 81, score=0.6)]
    images = by_image(ground_truth, [*detections, box(2, 40, score=0.1)])
    counts = confusion_matrix(images, [match_classes(image) for image in images], 2, 0.5)
    assert counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
