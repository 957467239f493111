"""COCO's AP compared with pycocotools and with the number of the reference."""

import contextlib
import copy
import io
import json
import logging
import warnings

import numpy as np
import pytest

from tests.evaluation.random_boxes import CATEGORY_IDS, random_case
from tests.material import material
from yolox_jax.errors import UserError
from yolox_jax.evaluation.coco_ap import STAT_NAMES, compute_ap, to_coco


def by_pycocotools(ground_truth, detections):
    """Returns the twelve numbers, and {category id: (AP, AP50)}."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        coco_eval = COCOeval(truth, truth.loadRes(copy.deepcopy(detections)), "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    per_class = {}
    for k, category_id in enumerate(coco_eval.params.catIds):
        precisions = coco_eval.eval["precision"][:, :, k, 0, -1], coco_eval.eval["precision"][0, :, k, 0, -1]
        per_class[category_id] = tuple(p[p > -1].mean() if (p > -1).any() else -1 for p in precisions)
    return coco_eval.stats, per_class


@pytest.mark.parametrize("seed", range(8))
def test_the_numbers_equal_those_of_pycocotools(seed):
    ground_truth, detections = random_case(seed)
    expected, expected_per_class = by_pycocotools(ground_truth, detections)
    result = compute_ap(ground_truth, detections)
    np.testing.assert_allclose([result.stats[name] for name in STAT_NAMES], expected, atol=1e-9, rtol=0)
    for category, of_class in zip(ground_truth["categories"], result.per_class, strict=True):
        assert of_class.name == category["name"]
        np.testing.assert_allclose((of_class.AP, of_class.AP50), expected_per_class[category["id"]], atol=1e-9, rtol=0)


def test_more_than_a_hundred_detections_in_an_image_are_treated_as_in_pycocotools():
    ground_truth, detections = random_case(3, num_images=2)
    rng = np.random.default_rng(0)
    crowd = [{**detections[0], "score": float(score)} for score in rng.random(150)]
    expected, _ = by_pycocotools(ground_truth, detections + crowd)
    found = list(compute_ap(ground_truth, detections + crowd).stats.values())
    np.testing.assert_allclose(found, expected, atol=1e-9, rtol=0)


def test_perfect_detections_have_an_ap_of_one_even_if_an_id_is_zero():
    ground_truth, _ = random_case(1)
    for i, annotation in enumerate(ground_truth["annotations"]):
        annotation.update(id=i, iscrowd=0)
    detections = [{**annotation, "score": 0.5} for annotation in ground_truth["annotations"]]
    assert compute_ap(ground_truth, detections).stats["AP"] == pytest.approx(1)


def test_image_ids_may_be_strings():
    ground_truth, detections = random_case(2)
    expected = compute_ap(ground_truth, detections)
    for record in (*ground_truth["annotations"], *detections):
        record["image_id"] = f"image-{record['image_id']:03}"
    for image in ground_truth["images"]:
        image["id"] = f"image-{image['id']:03}"
    assert compute_ap(ground_truth, detections) == expected


def test_without_detections_the_ap_is_zero():
    ground_truth, _ = random_case(0)
    assert set(compute_ap(ground_truth, []).stats.values()) == {0.0}


def test_without_ground_truth_boxes_the_ap_is_undefined():
    ground_truth, detections = random_case(0)
    result = compute_ap({**ground_truth, "annotations": []}, detections)
    assert set(result.stats.values()) == {-1.0}
    assert {(of_class.AP, of_class.AP50, of_class.num_boxes) for of_class in result.per_class} == {(-1.0, -1.0, 0)}
    assert set(compute_ap({"images": [], "annotations": [], "categories": []}, []).stats.values()) == {-1.0}


def test_an_annotation_without_area_has_the_area_of_its_box():
    ground_truth, detections = random_case(4)
    for annotation in ground_truth["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    expected = compute_ap(ground_truth, detections)
    for annotation in ground_truth["annotations"]:
        del annotation["area"]
    assert compute_ap(ground_truth, detections) == expected


def test_crowds_do_not_count_as_boxes():
    ground_truth, detections = random_case(5)
    for of_class, category in zip(
        compute_ap(ground_truth, detections).per_class, ground_truth["categories"], strict=True
    ):
        real = [a for a in ground_truth["annotations"] if a["category_id"] == category["id"] and not a["iscrowd"]]
        assert of_class.num_boxes == len(real)


def test_computing_ap_changes_no_argument_and_prints_nothing(capfd, caplog):
    caplog.set_level(logging.DEBUG)
    ground_truth, detections = random_case(6)
    before = copy.deepcopy((ground_truth, detections))
    compute_ap(ground_truth, detections)
    assert (ground_truth, detections) == before
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda truth, found: truth["images"].append(truth["images"][0]),
            "image id 5 occurs twice: give every image an id of its own",
        ),
        (lambda truth, found: truth["categories"].append(truth["categories"][0]), "category id 7 occurs twice"),
        (
            lambda truth, found: found[3].update(image_id=999),
            "detection 3 has image_id 999, which is not among the images",
        ),
        (
            lambda truth, found: found[3].update(category_id=999),
            "detection 3 has category_id 999, which is not among the categories",
        ),
        (lambda truth, found: truth["annotations"][2].update(image_id=999), "annotation 2 has image_id 999"),
    ],
)
def test_duplicate_and_unknown_ids_are_named(change, message):
    ground_truth, detections = random_case(7)
    change(ground_truth, detections)
    with pytest.raises(UserError, match=message):
        compute_ap(ground_truth, detections)


def test_the_result_is_formatted_as_a_table_and_as_json():
    ground_truth, detections = random_case(0)
    result = compute_ap(ground_truth, detections)
    written = json.loads(json.dumps(result.as_dict()))
    assert written["AP"] == result.stats["AP"]
    assert written["per_class"][1]["name"] == "class 2"
    assert written["per_class"][1]["num_boxes"] == result.per_class[1].num_boxes
    stats_1, stats_2, blank, header, row, last_row = result.table().splitlines()
    assert f"AP {100 * result.stats['AP']:5.1f}" in stats_1
    assert f"AR_large {100 * result.stats['AR_large']:5.1f}" in stats_2
    assert not blank
    assert header.count("AP50") == row.count("class ") == 3
    assert last_row.split() == ["class", "4", "-", "-", "0"]


def test_to_coco_divides_by_the_ratio_and_skips_padding_slots():
    rng = np.random.default_rng(0)
    B, D = 3, 4
    boxes = np.sort(rng.uniform(-20, 400, (B, D, 2, 2)), axis=2).reshape(B, D, 4).astype(np.float32)
    scores = rng.random((B, D)).astype(np.float32)
    labels = rng.integers(0, 4, (B, D)).astype(np.int32)
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1]], bool)
    ratios = np.array([0.5, 1.0, 2.0], np.float32)
    image_ids = np.array([11, 12, 13])

    expected = []
    for b in range(B):
        for d in range(D):
            if mask[b, d]:
                x1, y1, x2, y2 = (float(value) / float(ratios[b]) for value in boxes[b, d])
                expected.append((image_ids[b], CATEGORY_IDS[labels[b, d]], [x1, y1, x2 - x1, y2 - y1], scores[b, d]))
    found = to_coco(boxes, scores, labels, mask, ratios, image_ids, CATEGORY_IDS)
    assert len(found) == len(expected)
    for one, (image_id, category_id, bbox, score) in zip(found, expected, strict=True):
        assert (one["image_id"], one["category_id"], one["score"]) == (image_id, category_id, score)
        assert one["bbox"] == pytest.approx(bbox)
    json.dumps(found)


def test_to_coco_of_no_detections_is_empty():
    zeros = np.zeros((2, 3))
    assert to_coco(np.zeros((2, 3, 4)), zeros, zeros.astype(int), zeros.astype(bool), np.ones(2), [1, 2], [1]) == []


def test_to_coco_refuses_a_duplicate_image_and_a_label_without_category():
    boxes, scores, labels, mask = np.ones((2, 1, 4)), np.ones((2, 1)), np.array([[0], [3]]), np.ones((2, 1), bool)
    with pytest.raises(UserError, match="image id 'a' occurs twice"):
        to_coco(boxes, scores, labels, mask, np.ones(2), ["a", "a"], CATEGORY_IDS)
    padded = np.array([[True], [False]])
    assert len(to_coco(boxes, scores, labels, padded, np.ones(2), ["a", "a"], CATEGORY_IDS)) == 1
    for label in (-1, 4):
        with pytest.raises(ValueError, match="but there are 4 categories"):
            to_coco(boxes, scores, np.full((2, 1), label), mask, np.ones(2), ["a", "b"], CATEGORY_IDS)


def test_the_detections_of_the_reference_have_its_ap():
    folder = material("data/coco_val100")
    ground_truth = json.loads((folder / "annotations.json").read_text())
    detections = json.loads((folder / "reference_detections_nano.json").read_text())
    result = compute_ap(ground_truth, detections)
    expected, _ = by_pycocotools(ground_truth, detections)
    np.testing.assert_allclose(list(result.stats.values()), expected, atol=1e-9, rtol=0)
    found = [result.stats[name] for name in ("AP", "AP50", "AP75")]
    np.testing.assert_allclose(found, [0.3262, 0.5133, 0.3401], atol=6e-5)
