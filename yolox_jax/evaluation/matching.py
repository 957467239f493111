"""Matches detections with ground-truth boxes as COCO does: greedily, in the order of their scores."""

import dataclasses

import numpy as np

from yolox_jax.evaluation.image_boxes import ImageBoxes

MIN_IOU = 0.5
_MAX_PER_CLASS = 100  # detections of a class in an image that count, as in COCO


@dataclasses.dataclass(frozen=True)
class Matches:
    """The outcome for each of an image's D detections. `gt_index_D` is meaningful only for true positives."""

    true_positive_D: np.ndarray  # bool: matched with a box of its class
    gt_index_D: np.ndarray  # int: that box
    ignored_D: np.ndarray  # bool: does not count, because it lies in a crowd or is not among the best hundred


def match(iou_DG: np.ndarray, crowd_G: np.ndarray, min_iou: float = MIN_IOU) -> tuple[np.ndarray, np.ndarray]:
    """Matches each detection with a box; returns the indices of the boxes, [D], and which detections are matched, [D].

    In their order, detections take the box of largest IoU that is still free. A detection without a free box is matched
    with a crowd that it overlaps; a crowd takes any number of detections.
    """
    gt_index_D, matched_D = np.zeros(len(iou_DG), np.int64), np.zeros(len(iou_DG), np.bool_)
    free_G = ~crowd_G
    for detection in np.flatnonzero((iou_DG >= min_iou).any(axis=1)).tolist():
        for allowed_G in (free_G, crowd_G):
            iou_G = np.where(allowed_G, iou_DG[detection], 0.0)
            # Among equal IoUs the last box, as in COCO's loop.
            box = len(iou_G) - 1 - int(np.argmax(iou_G[::-1]))
            if iou_G[box] >= min_iou:
                gt_index_D[detection], matched_D[detection] = box, True
                free_G[box] = False
                break
    return gt_index_D, matched_D


def match_classes(image: ImageBoxes, min_iou: float = MIN_IOU) -> Matches:
    """Runs `match` for each class separately."""
    num_detections = len(image.score_D)
    true_positive_D, ignored_D = np.zeros(num_detections, np.bool_), np.zeros(num_detections, np.bool_)
    gt_index_D = np.zeros(num_detections, np.int64)
    iou_DG = image.coco_iou_DG()
    for label in np.unique(image.pred_label_D).tolist():
        of_class_D = np.flatnonzero(image.pred_label_D == label)
        of_class_G = np.flatnonzero(image.gt_label_G == label)
        ignored_D[of_class_D[_MAX_PER_CLASS:]] = True
        counted_D = of_class_D[:_MAX_PER_CLASS]
        if not of_class_G.size:
            continue
        crowd_G = image.crowd_G[of_class_G]
        index_D, matched_D = match(iou_DG[np.ix_(counted_D, of_class_G)], crowd_G, min_iou)
        in_crowd_D = matched_D & crowd_G[index_D]
        ignored_D[counted_D] = in_crowd_D
        true_positive_D[counted_D] = matched_D & ~in_crowd_D
        gt_index_D[counted_D] = of_class_G[index_D]
    return Matches(true_positive_D, gt_index_D, ignored_D)
