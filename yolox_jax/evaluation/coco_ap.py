"""Computes COCO's average precision with faster_coco_eval (C++); the numbers equal those of pycocotools."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core import COCO, COCOeval_faster

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
    image_numbers = _number("image", sorted_ids(ground_truth))
    categories = ground_truth["categories"]
    category_numbers = _number("category", (category["id"] for category in categories))

    def renumbered(kind: str, index: int, box: Mapping[str, Any]) -> dict[str, Any]:
        for key, known in (("image_id", image_numbers), ("category_id", category_numbers)):
            if box[key] not in known:
                listed = "images" if key == "image_id" else "categories"
                raise UserError(
                    f"{kind} {index} has {key} {box[key]!r}, which is not among the {listed} of the ground truth",
                    f"correct the id, or add it to the {listed}",
                )
        x, y, width, height = map(float, box["bbox"])
        return {
            "id": index + 1,
            "image_id": image_numbers[box["image_id"]],
            "category_id": category_numbers[box["category_id"]],
            "bbox": [x, y, width, height],
            "area": width * height,
            "iscrowd": 0,
        }

    truth = []
    for i, annotation in enumerate(ground_truth["annotations"]):
        box = renumbered("annotation", i, annotation)
        box["area"] = float(annotation.get("area", box["area"]))
        box["iscrowd"] = int(annotation.get("iscrowd", 0))
        truth.append(box)
    found = [{**renumbered("detection", i, box), "score": float(box["score"])} for i, box in enumerate(detections)]

    num_boxes = Counter(box["category_id"] for box in truth if not box["iscrowd"])
    stats, class_ap, class_ap50 = _coco_eval(len(image_numbers), len(category_numbers), truth, found)
    return ApResult(
        stats=dict(zip(STAT_NAMES, stats, strict=True)),
        per_class=tuple(
            ClassAp(str(category["name"]), class_ap[i], class_ap50[i], num_boxes[i + 1])
            for i, category in enumerate(categories)
        ),
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


def _coco_eval(
    num_images: int, num_classes: int, truth: list[dict[str, Any]], found: list[dict[str, Any]]
) -> tuple[list[float], list[float], list[float]]:
    """Returns COCO's twelve numbers, and the AP and AP50 of each class."""
    coco_truth, coco_found = (
        COCO(
            {
                "images": [{"id": i + 1} for i in range(num_images)],
                "categories": [{"id": i + 1} for i in range(num_classes)],
                "annotations": boxes,
            },
            print_function=_silent,
        )
        for boxes in (truth, found)
    )
    coco_eval = COCOeval_faster(coco_truth, coco_found, iouType="bbox", print_function=_silent)
    coco_eval.run()

    precision_TRKAM = coco_eval.eval["precision"]  # IoU threshold, recall, class, area range, max detections
    precision_KTR = np.asarray(precision_TRKAM)[:, :, :, 0, -1].transpose(2, 0, 1)
    return (
        [float(value) for value in coco_eval.stats],
        [_mean(precision_TR) for precision_TR in precision_KTR],
        [_mean(precision_TR[0]) for precision_TR in precision_KTR],  # the first threshold is 0.5
    )


def _silent(*_: object) -> None:
    """Replaces the function that faster_coco_eval prints with."""


def _mean(precision: np.ndarray) -> float:
    defined = precision[precision > UNDEFINED]
    return float(defined.mean()) if defined.size else UNDEFINED
