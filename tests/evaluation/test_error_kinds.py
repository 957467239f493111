"""TIDE's kinds of mistakes: one of each, and what is left of the AP50 when one kind is mended."""

import collections

import numpy as np
import pytest

from yolox_jax.evaluation.diagnosis import diagnose
from yolox_jax.evaluation.error_kinds import KINDS, error_kinds

_BOX = [10.0, 10.0, 40.0, 40.0]
_NEAR = [30.0, 10.0, 40.0, 40.0]  # IoU 1/3 with it
_FAR = [200.0, 200.0, 40.0, 40.0]


def _truth(*boxes, num_classes=2):
    """A COCO dict of (image, category, bbox)."""
    return {
        "images": [{"id": image} for image in sorted({image for image, *_ in boxes})],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(num_classes)],
        "annotations": [
            {"id": n + 1, "image_id": image, "category_id": category, "bbox": bbox}
            for n, (image, category, bbox) in enumerate(boxes)
        ],
    }


def _found(*boxes):
    return [
        {"image_id": image, "category_id": category, "bbox": bbox, "score": score}
        for image, category, bbox, score in boxes
    ]


def _counts(truth, found, threshold=0.0):
    diagnosis = diagnose(truth, found)
    kinds = error_kinds(diagnosis.images, diagnosis.matches, len(truth["categories"]), threshold)
    return {kind.name: kind.count for kind in kinds if kind.count}


def _gains(truth, found):
    return {kind.name: kind.lost_ap50 for kind in diagnose(truth, found).errors()}


def _ap50(truth, found):
    return diagnose(truth, found).mean_precision().mean()


@pytest.mark.parametrize(
    ("category", "bbox", "expected"),
    [
        (0, _NEAR, {"localization": 1}),
        (1, _BOX, {"classification": 1}),
        (1, _NEAR, {"both": 1, "missed": 1}),
        (0, _FAR, {"background": 1, "missed": 1}),
    ],
)
def test_each_kind_is_known_and_a_box_that_a_mended_detection_finds_is_not_missed(category, bbox, expected):
    assert _counts(_truth((1, 0, _BOX)), _found((1, category, bbox, 0.9))) == expected


def test_a_second_detection_of_a_box_is_a_duplicate_and_one_below_the_threshold_does_not_count():
    truth, found = _truth((1, 0, _BOX)), _found((1, 0, _BOX, 0.9), (1, 0, _BOX, 0.4))
    assert _counts(truth, found) == {"duplicate": 1}
    assert _counts(truth, found, threshold=0.5) == {}
    assert _counts(truth, found, threshold=0.95) == {"missed": 1}


def test_a_detection_of_a_crowd_is_no_mistake():
    truth = _truth((1, 0, _BOX))
    truth["annotations"][0]["iscrowd"] = 1
    assert _counts(truth, _found((1, 0, _BOX, 0.9), (1, 0, _BOX, 0.8))) == {}


def test_a_mended_detection_is_correct_and_of_two_for_one_box_the_better_one():
    truth = _truth((1, 0, _BOX), (2, 0, _BOX), (3, 0, _BOX))
    found = _found((1, 0, _NEAR, 0.9), (1, 0, _BOX, 0.8), (2, 1, _BOX, 0.7), (2, 0, _NEAR, 0.6), (3, 1, _BOX, 0.5))
    before, gains = _ap50(truth, found), _gains(truth, found)
    # The first is left out: its box has a correct detection. The fourth too: the third is better.
    assert gains["localization"] == pytest.approx(_ap50(truth, [found[1], found[2], found[4]]) - before)
    mended = [{**each, "category_id": 0} for each in (found[2], found[4])]
    # The localization error of image 2 is then a second detection.
    assert gains["classification"] == pytest.approx(_ap50(truth, [*found[:2], found[3], *mended]) - before)
    assert gains["classification"] > 0.1


def test_leaving_out_what_is_wrong_and_what_is_missed_gives_the_ap_of_what_is_left():
    """Random boxes: the kinds found by a loop over their definitions, and AP50 computed again without them."""
    rng = np.random.default_rng(0)

    def boxes(num):
        return np.concatenate([rng.uniform(0, 60, (num, 2)), rng.uniform(20, 40, (num, 2))], axis=1).tolist()

    truth = _truth(*[(n % 6, n % 3, box) for n, box in enumerate(boxes(40))], num_classes=3)
    jittered = [(np.array(each["bbox"]) + rng.normal(0, 4, 4)).tolist() for each in truth["annotations"]] * 2
    found = _found(
        *[(n % 40 % 6, int(rng.integers(3)), box, rng.uniform()) for n, box in enumerate([*jittered, *[_FAR] * 6])]
    )
    diagnosis = diagnose(truth, found)
    by_kind, missed = collections.defaultdict(list), []
    for image, match in zip(diagnosis.images, diagnosis.matches, strict=True):
        iou_DG, used = image.iou_DG(), set(match.gt_index_D[match.true_positive_D].tolist())
        aimed = set(used)
        for d in range(len(image.score_D)):
            if match.true_positive_D[d]:
                continue
            same = [iou_DG[d, g] for g in range(iou_DG.shape[1]) if image.gt_label_G[g] == image.pred_label_D[d]]
            other = [iou_DG[d, g] for g in range(iou_DG.shape[1]) if image.gt_label_G[g] != image.pred_label_D[d]]
            if 0.1 <= max(same, default=0) < 0.5:
                kind, chosen = "localization", max(same)
            elif max(other, default=0) >= 0.5:
                kind, chosen = "classification", max(other)
            elif max(same, default=0) >= 0.5:
                kind, chosen = "duplicate", None
            else:
                kind, chosen = ("background" if iou_DG[d].max() < 0.1 else "both"), None
            if chosen is not None:
                aimed.add(int(np.flatnonzero(iou_DG[d] == chosen)[0]))
            by_kind[kind].append((image.image_id, image.score_D[d]))
        missed += [(image.image_id, g) for g in range(iou_DG.shape[1]) if g not in aimed]

    counts = _counts(truth, found)
    assert counts == {**{kind: len(each) for kind, each in by_kind.items()}, "missed": len(missed)}
    assert set(counts) == set(KINDS)
    gains, before = _gains(truth, found), _ap50(truth, found)
    for kind in ("duplicate", "background", "both"):
        left = [each for each in found if (each["image_id"], each["score"]) not in by_kind[kind]]
        assert gains[kind] == pytest.approx(_ap50(truth, left) - before), kind
    place = collections.Counter()
    kept = []
    for each in truth["annotations"]:
        if (each["image_id"], place[each["image_id"]]) not in missed:
            kept.append(each)
        place[each["image_id"]] += 1
    assert gains["missed"] == pytest.approx(_ap50({**truth, "annotations": kept}, found) - before)
