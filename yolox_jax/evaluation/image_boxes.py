"""The boxes of one image and what was found in it, side by side as arrays."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_jax.boxes import pairwise_intersection_and_union, xywh_to_xyxy

_TINY = np.finfo(np.float64).tiny  # the area of two boxes without any is not to divide by 0


@dataclasses.dataclass(frozen=True)
class ImageBoxes:
    """G boxes and D detections of an image, in its own pixels; detections best score first."""

    image_id: int | str
    gt_xyxy_G4: np.ndarray  # float64
    gt_label_G: np.ndarray
    crowd_G: np.ndarray  # bool: to be neither found nor missed
    found_xyxy_D4: np.ndarray  # float64
    found_label_D: np.ndarray
    score_D: np.ndarray

    def iou_DG(self) -> np.ndarray:
        """IoU of each detection with each box, crowds like others."""
        shared_DG, union_DG = pairwise_intersection_and_union(self.found_xyxy_D4, self.gt_xyxy_G4)
        return shared_DG / np.maximum(union_DG, _TINY)

    def coco_iou_DG(self) -> np.ndarray:
        """COCO's: with a crowd it is the share of the detection that lies in it."""
        shared_DG, union_DG = pairwise_intersection_and_union(self.found_xyxy_D4, self.gt_xyxy_G4)
        area_D = np.prod(self.found_xyxy_D4[:, 2:] - self.found_xyxy_D4[:, :2], axis=1)
        return shared_DG / np.maximum(np.where(self.crowd_G[None, :], area_D[:, None], union_DG), _TINY)


def sorted_ids(ground_truth: Mapping[str, Any]) -> list[Any]:
    """The images' ids in pycocotools's order, text after numbers: it decides between equal scores."""
    return sorted((image["id"] for image in ground_truth["images"]), key=lambda id: (isinstance(id, str), id))


def by_image(ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> list[ImageBoxes]:
    """Every image of a COCO annotation dict with its part of the detections (COCO form), in the order of the ids."""
    label_of = {category["id"]: label for label, category in enumerate(ground_truth["categories"])}
    boxes_of, found_in = collections.defaultdict(list), collections.defaultdict(list)
    for box in ground_truth["annotations"]:
        boxes_of[box["image_id"]].append(box)
    for detection in detections:
        found_in[detection["image_id"]].append(detection)

    images = []
    for id in sorted_ids(ground_truth):
        boxes, found = boxes_of[id], sorted(found_in[id], key=lambda each: -each["score"])
        images.append(
            ImageBoxes(
                image_id=id,
                gt_xyxy_G4=_corners(boxes),
                gt_label_G=np.array([label_of[box["category_id"]] for box in boxes], np.int64),
                crowd_G=np.array([bool(box.get("iscrowd", 0)) for box in boxes], np.bool_),
                found_xyxy_D4=_corners(found),
                found_label_D=np.array([label_of[each["category_id"]] for each in found], np.int64),
                score_D=np.array([each["score"] for each in found], np.float64),
            )
        )
    return images


def _corners(boxes: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return xywh_to_xyxy(np.array([box["bbox"] for box in boxes], np.float64).reshape(-1, 4))
