"""Which detection finds which box: greedily, the best score first, as COCO does."""

import dataclasses

import numpy as np

from yolox_jax.evaluation.image_boxes import ImageBoxes

MIN_IOU = 0.5
_MAX_OF_CLASS = 100  # detections of a class in an image that count, as in COCO


@dataclasses.dataclass(frozen=True)
class Matches:
    """What became of an image's D detections. `gt_index_D` means something only where `found_D`."""

    found_D: np.ndarray  # bool: finds a box of its class
    gt_index_D: np.ndarray  # int
    ignored_D: np.ndarray  # bool: neither right nor wrong, for it lies in a crowd or beyond the best hundred


def match(iou_DG: np.ndarray, crowd_G: np.ndarray, min_iou: float = MIN_IOU) -> tuple[np.ndarray, np.ndarray]:
    """The box that each detection gets, and whether it gets one.

    Detections in their order take the box of the largest IoU among those still free. Only where no box is left for one,
    a crowd takes it, and any number of others.
    """
    gt_index_D, matched_D = np.zeros(len(iou_DG), np.int64), np.zeros(len(iou_DG), np.bool_)
    free_G = ~crowd_G
    for detection in np.flatnonzero((iou_DG >= min_iou).any(axis=1)).tolist():
        for allowed_G in (free_G, crowd_G):
            iou_G = np.where(allowed_G, iou_DG[detection], 0.0)
            # The last of equal ones, as COCO's loop has it.
            box = len(iou_G) - 1 - int(np.argmax(iou_G[::-1]))
            if iou_G[box] >= min_iou:
                gt_index_D[detection], matched_D[detection] = box, True
                free_G[box] = False
                break
    return gt_index_D, matched_D


def match_classes(image: ImageBoxes, min_iou: float = MIN_IOU) -> Matches:
    """`match` for each class by itself."""
    num_found = len(image.score_D)
    found_D, ignored_D = np.zeros(num_found, np.bool_), np.zeros(num_found, np.bool_)
    gt_index_D = np.zeros(num_found, np.int64)
    iou_DG = image.coco_iou_DG()
    for label in np.unique(image.found_label_D).tolist():
        of_class_D = np.flatnonzero(image.found_label_D == label)
        of_class_G = np.flatnonzero(image.gt_label_G == label)
        ignored_D[of_class_D[_MAX_OF_CLASS:]] = True
        counting_D = of_class_D[:_MAX_OF_CLASS]
        if not of_class_G.size:
            continue
        crowd_G = image.crowd_G[of_class_G]
        index_D, matched_D = match(iou_DG[np.ix_(counting_D, of_class_G)], crowd_G, min_iou)
        in_crowd_D = matched_D & crowd_G[index_D]
        ignored_D[counting_D] = in_crowd_D
        found_D[counting_D] = matched_D & ~in_crowd_D
        gt_index_D[counting_D] = of_class_G[index_D]
    return Matches(found_D, gt_index_D, ignored_D)
