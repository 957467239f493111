"""VOC's AP compared with the reference's function and with a naive loop."""

import itertools
import json

import numpy as np
import pytest

from tests.evaluation.random_boxes import random_case
from tests.material import GOLDEN
from yolox_jax.evaluation import voc_ap
from yolox_jax.evaluation.ap_result import UNDEFINED


def test_every_number_equals_that_of_the_reference():
    case = json.loads((GOLDEN / "voc_ap.json").read_text())
    result = voc_ap.compute_ap(case, case["detections"])
    expected = {name: (np.mean(case["ap12"][name]), case["ap12"][name][0]) for name in case["ap12"]}
    for of_class in result.per_class:
        np.testing.assert_allclose((of_class.AP, of_class.AP50), expected[of_class.name], atol=1e-12)
    map07 = np.mean([aps[0] for aps in case["ap07"].values()])
    map12, map_5095 = np.mean([aps[0] for aps in case["ap12"].values()]), np.mean(list(case["ap12"].values()))
    stats = {
        "AP": map_5095,
        "AP50": map12,
        "mAP07": map07,
        "mAP12": map12,
        "AP07": np.mean(list(case["ap07"].values())),
    }
    assert result.stats == pytest.approx(stats, abs=1e-12)


def _iou(one, other):
    (x, y, w, h), (x2, y2, w2, h2) = one, other
    shared = max(0, min(x + w, x2 + w2) - max(x, x2)) * max(0, min(y + h, y2 + h2) - max(y, y2))
    return shared / (w * h + w2 * h2 - shared)


def _naive(ground_truth, detections, category_id):
    """The AP of a class in mAP07 and in mAP12, one detection at a time, or None without ground-truth boxes."""
    truth = [a for a in ground_truth["annotations"] if a["category_id"] == category_id]
    num_boxes = sum(not a["iscrowd"] for a in truth)
    if not num_boxes:
        return None
    points, taken, right, wrong = [], set(), 0, 0
    for detection in sorted((d for d in detections if d["category_id"] == category_id), key=lambda d: -d["score"]):
        in_image = [a for a in truth if a["image_id"] == detection["image_id"]]
        best = max(in_image, key=lambda a: _iou(a["bbox"], detection["bbox"]), default=None)
        if best is None or _iou(best["bbox"], detection["bbox"]) <= 0.5:
            wrong += 1
        elif not best["iscrowd"]:
            wrong += best["id"] in taken
            right += best["id"] not in taken
            taken.add(best["id"])
        points.append((right / num_boxes, right / max(right + wrong, 1)))
    eleven = sum(max((p for r, p in points if r >= t), default=0) for t in np.arange(0, 1.1, 0.1)) / 11
    recalls = sorted({0.0} | {r for r, _ in points})
    area = sum((high - low) * max(p for r, p in points if r >= high) for low, high in itertools.pairwise(recalls))
    return eleven, area


@pytest.mark.parametrize("seed", range(4))
def test_both_means_equal_those_of_a_naive_loop(seed):
    ground_truth, detections = random_case(seed)
    rng = np.random.default_rng(seed)
    for detection, place in zip(detections, rng.permutation(len(detections)), strict=True):
        detection["score"] = place / len(detections)  # no ties, since VOC does not define their order
    result = voc_ap.compute_ap(ground_truth, detections)
    naive = [_naive(ground_truth, detections, category["id"]) for category in ground_truth["categories"]]
    for of_class, expected in zip(result.per_class, naive, strict=True):
        assert of_class.AP50 == (UNDEFINED if expected is None else pytest.approx(expected[1], abs=1e-12))
    means = np.mean([each for each in naive if each is not None], axis=0)
    np.testing.assert_allclose((result.stats["mAP07"], result.stats["mAP12"]), means, atol=1e-12)


def test_without_detections_every_number_is_zero_and_without_ground_truth_boxes_undefined():
    ground_truth, _ = random_case(0)
    assert set(voc_ap.compute_ap(ground_truth, []).stats.values()) == {0.0}
    assert set(voc_ap.compute_ap(ground_truth | {"annotations": []}, []).stats.values()) == {UNDEFINED}


def test_the_table_names_the_four_numbers():
    ground_truth, detections = random_case(1)
    table = voc_ap.compute_ap(ground_truth, detections).table()
    assert [word for word in table.split() if word in ("AP", "AP50", "mAP07", "mAP12")][:4] == [
        "AP",
        "AP50",
        "mAP07",
        "mAP12",
    ]
