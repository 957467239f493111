"""ImageBoxes: the ground-truth boxes and the detections of one image as arrays, and their overlaps."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox_jax.boxes import pairwise_intersection_and_union, xywh_to_xyxy

_TINY = np.finfo(np.float64).tiny  # avoids 0 / 0 for two boxes without area


@dataclasses.dataclass(frozen=True)
class ImageBoxes:
    """G ground-truth boxes and D detections of an image, in its pixels; detections are sorted, best score first."""

    image_id: int | str
    gt_xyxy_G4: np.ndarray  # float64
    gt_label_G: np.ndarray
    crowd_G: np.ndarray  # bool: it may be missed, and a detection of it is not wrong
    pred_xyxy_D4: np.ndarray  # float64
    pred_label_D: np.ndarray
    score_D: np.ndarray

    def iou_DG(self) -> np.ndarray:
        """IoU of each detection with each ground-truth box; crowds are treated like other boxes."""
        shared_DG, union_DG = pairwise_intersection_and_union(self.pred_xyxy_D4, self.gt_xyxy_G4)
        return shared_DG / np.maximum(union_DG, _TINY)

    def coco_iou_DG(self) -> np.ndarray:
        """IoU as COCO defines it: with a crowd, the share of the detection's area that lies inside the crowd."""
        shared_DG, union_DG = pairwise_intersection_and_union(self.pred_xyxy_D4, self.gt_xyxy_G4)
        area_D = np.prod(self.pred_xyxy_D4[:, 2:] - self.pred_xyxy_D4[:, :2], axis=1)
        return shared_DG / np.maximum(np.where(self.crowd_G[None, :], area_D[:, None], union_DG), _TINY)


def sorted_ids(ground_truth: Mapping[str, Any]) -> list[Any]:
    """Returns image ids in pycocotools' order, text after numbers; the order breaks ties between equal scores."""
    return sorted((image["id"] for image in ground_truth["images"]), key=lambda id: (isinstance(id, str), id))


def by_image(ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> list[ImageBoxes]:
    """Groups a COCO annotation dict and detections in COCO's result format by image, in the order of `sorted_ids`."""
    label_of = {category["id"]: label for label, category in enumerate(ground_truth["categories"])}
    gt_of, pred_of = collections.defaultdict(list), collections.defaultdict(list)
    for annotation in ground_truth["annotations"]:
        gt_of[annotation["image_id"]].append(annotation)
    for detection in detections:
        pred_of[detection["image_id"]].append(detection)

    images = []
    for id in sorted_ids(ground_truth):
        gt, pred = gt_of[id], sorted(pred_of[id], key=lambda detection: -detection["score"])
        images.append(
            ImageBoxes(
                image_id=id,
                gt_xyxy_G4=_boxes_xyxy(gt),
                gt_label_G=np.array([label_of[box["category_id"]] for box in gt], np.int64),
                crowd_G=np.array([bool(box.get("iscrowd", 0)) for box in gt], np.bool_),
                pred_xyxy_D4=_boxes_xyxy(pred),
                pred_label_D=np.array([label_of[box["category_id"]] for box in pred], np.int64),
                score_D=np.array([box["score"] for box in pred], np.float64),
            )
        )
    return images


def _boxes_xyxy(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return xywh_to_xyxy(np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4))
