"""Computes COCO's average precision with hotcoco (Rust); the numbers equal those of pycocotools."""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

from yolox_jax.boxes import xyxy_to_xywh
from yolox_jax.errors import UserError
from yolox_jax.evaluation.ap_result import UNDEFINED, ApResult, ClassAp
from yolox_jax.evaluation.image_boxes import sorted_ids

# In the order of COCO's own summary.
STAT_NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


def compute_ap(ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> ApResult:
    """Computes the twelve numbers of COCO, and the AP and AP50 of each class.

    Ids may be numbers or strings. They are replaced by 1, 2 … for COCO's code, which takes the id 0 of a matched box
    for "no match".

    Args:
      ground_truth: a COCO annotation dict; a box without `area` gets width times height. Not changed.
      detections: in COCO's result format: image_id, category_id, bbox xywh, score. Only the best 100 per image and
        class count. Not changed.
    Raises:
      UserError: an id occurs twice, or is not in the ground truth.
    """
    images, categories = sorted_ids(ground_truth), ground_truth["categories"]
    numbers = {
        "image_id": _number("image", images),
        "category_id": _number("category", (category["id"] for category in categories)),
    }
    annotations = ground_truth["annotations"]
    truth, found = _columns("annotation", annotations, numbers), _columns("detection", detections, numbers)
    area_of_box_N = (truth.xywh_N4[:, 2] * truth.xywh_N4[:, 3]).tolist()
    area_N = [box.get("area", area) for box, area in zip(annotations, area_of_box_N, strict=True)]
    crowd_N = np.array([bool(box.get("iscrowd", 0)) for box in annotations], np.bool_)

    coco_truth = COCO.from_arrays(
        [{"id": 1 + i} for i in range(len(images))],
        [{"id": 1 + i, "name": str(i)} for i in range(len(categories))],
        *(truth.image_N, truth.category_N, truth.xywh_N4),
        area=np.array(area_N, np.float64),
        iscrowd=crowd_N,
    )
    score_N = np.array([box["score"] for box in detections], np.float64)
    columns = found.image_N, found.xywh_N4, score_N, found.category_N
    stats, class_ap, class_ap50, class_ap_by_size = _coco_eval(
        coco_truth, coco_truth.load_res(np.column_stack(columns))
    )
    num_boxes = np.bincount(truth.category_N[~crowd_N], minlength=1 + len(categories)).tolist()
    return ApResult(
        stats=dict(zip(STAT_NAMES, stats, strict=True)),
        per_class=tuple(
            ClassAp(str(category["name"]), class_ap[i], class_ap50[i], num_boxes[i + 1])
            for i, category in enumerate(categories)
        ),
        class_ap_by_size=class_ap_by_size,
    )


def to_coco(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    ratios: np.ndarray,
    image_ids: Sequence[int | str],
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """Converts padded arrays in letterboxed input pixels to COCO's result format in the pixels of each image.

    Like the reference, this does not clip boxes to the image.

    Args:
      boxes_xyxy: [B, D, 4].
      scores, labels, mask: [B, D].
      ratios: [B], letterboxed size / image size.
      image_ids: B ids. A row without detections may repeat an id, as the padding rows of a batch do.
      category_ids: C ids, by label.
    Raises:
      ValueError: a label has no category.
      UserError: two rows with detections have the same image id.
    """
    ids = np.asarray(image_ids).tolist()  # Python numbers, since json cannot write numpy's
    categories = np.asarray(category_ids).tolist()
    image_D, slot_D = np.nonzero(mask)
    label_D = np.asarray(labels)[image_D, slot_D]
    if label_D.size and not 0 <= label_D.min() <= label_D.max() < len(category_ids):
        raise ValueError(
            f"labels range from {label_D.min()} to {label_D.max()}, but there are {len(category_ids)} categories"
        )
    _number("image", [ids[row] for row in np.unique(image_D)])  # only to refuse ids that occur twice

    xyxy_D4 = np.asarray(boxes_xyxy)[image_D, slot_D].astype(np.float64) / np.asarray(ratios, np.float64)[image_D, None]
    xywh_D4 = xyxy_to_xywh(xyxy_D4)
    columns = (image_D, label_D, xywh_D4, np.asarray(scores)[image_D, slot_D])
    return [
        {"image_id": ids[row], "category_id": categories[label], "bbox": xywh, "score": score}
        for row, label, xywh, score in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _number(kind: str, ids: Iterable[Hashable]) -> dict[Any, int]:
    """Numbers the ids from 1. Raises UserError if one occurs twice."""
    numbers: dict[Hashable, int] = {}
    for number, id in enumerate(ids, start=1):
        if numbers.setdefault(id, number) != number:
            raise UserError(f"{kind} id {id!r} occurs twice", f"give every {kind} an id of its own")
    return numbers


@dataclasses.dataclass(frozen=True)
class _Columns:
    """N boxes, with numbers in place of ids."""

    image_N: np.ndarray
    category_N: np.ndarray
    xywh_N4: np.ndarray


def _columns(kind: str, boxes: Sequence[Mapping[str, Any]], numbers: Mapping[str, dict[Any, int]]) -> _Columns:
    """Collects annotations or detections. Raises UserError if an id has no number."""
    numbers_of = {}
    for key, number_of in numbers.items():
        column = [number_of.get(box[key], 0) for box in boxes]
        if 0 in column:
            index = column.index(0)
            listed = "images" if key == "image_id" else "categories"
            raise UserError(
                f"{kind} {index} has {key} {boxes[index][key]!r}, which is not among the {listed} of the ground truth",
                f"correct the id, or add it to the {listed}",
            )
        numbers_of[key] = np.array(column, np.int64)
    xywh_N4 = np.array([box["bbox"] for box in boxes], np.float64).reshape(len(boxes), 4)
    return _Columns(numbers_of["image_id"], numbers_of["category_id"], xywh_N4)


def _coco_eval(truth: COCO, found: COCO) -> tuple[list[float], list[float], list[float], tuple[tuple[float, ...], ...]]:
    """Returns COCO's twelve numbers, and of each class AP, AP50, and AP of small, medium and large boxes."""
    coco_eval = COCOeval(truth, found, "bbox")
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summary_lines()  # fills `stats`; summarize() would print them too

    assert coco_eval.eval is not None  # accumulate() filled it
    precision_TRKAM = np.asarray(coco_eval.eval["precision"])  # IoU threshold, recall, class, area range, detections
    precision_KTR = precision_TRKAM[:, :, :, 0, -1].transpose(2, 0, 1)
    return (
        [float(value) for value in coco_eval.stats],
        [_mean(precision_TR) for precision_TR in precision_KTR],
        [_mean(precision_TR[0]) for precision_TR in precision_KTR],  # the first threshold is 0.5
        tuple(
            tuple(_mean(precision_TR) for precision_TR in precision_ATR)
            for precision_ATR in precision_TRKAM[:, :, :, 1:, -1].transpose(2, 3, 0, 1)
        ),
    )


def _mean(precision: np.ndarray) -> float:
    defined = precision[precision > UNDEFINED]
    return float(defined.mean()) if defined.size else UNDEFINED
