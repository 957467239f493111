"""Draws the positive anchors that an assignment gave to each ground-truth box of a batch."""

from collections.abc import Sequence

import cv2
import numpy as np

from yolox_jax.detection.anchors import STRIDES
from yolox_jax.types import Anchors, Assignment, Batch
from yolox_jax.visualize import drawing, sheets

_LEGEND = "Positive anchors: dot = stride 8, square = stride 16, triangle = stride 32; a crossed-out box has none"
_RADIUS = 4  # pixels of the sheet
_BLACK = (0, 0, 0)
_CELL, _COLUMNS = 640, 4


def draw_sheet(batch: Batch, assignment: Assignment, anchors: Anchors, class_names: tuple[str, ...]) -> np.ndarray:
    """Draws each image of a batch with its boxes and their positive anchors, in a grid under a legend."""
    center_A2, stride_A = np.asarray(anchors.centers), np.asarray(anchors.strides)
    pictures = []
    for index, image in enumerate(np.asarray(batch.images)):
        fitted, scale = sheets.fit(image, _CELL)
        mask_G, positive_A = np.asarray(batch.gt_mask[index]), np.asarray(assignment.positive[index])
        box_of_slot_G = np.cumsum(mask_G) - 1  # from an index with padding slots to one without
        picture = draw_assignment(
            fitted,
            np.asarray(batch.gt_boxes[index])[mask_G] * scale,
            [class_names[label] for label in np.asarray(batch.gt_labels[index])[mask_G]],
            center_A2[positive_A] * scale,
            stride_A[positive_A],
            box_of_slot_G[np.asarray(assignment.gt_index[index])[positive_A]],
        )
        pictures.append(picture)
    sheet = sheets.sheet(pictures, _COLUMNS, _CELL)
    return sheets.titled(sheet, _LEGEND, sheet.shape[1])


def summary(batch: Batch, assignment: Assignment, anchors: Anchors) -> str:
    """Describes an assignment in one line: numbers of boxes, of positive anchors by level, of boxes without anchors."""
    num_boxes = int(np.sum(batch.gt_mask))
    num_with_anchors = sum(
        len(np.unique(gt_index_A[positive_A]))
        for gt_index_A, positive_A in zip(assignment.gt_index, assignment.positive, strict=True)
    )
    strides = np.asarray(anchors.strides)
    by_level = [f"{assignment.positive[:, strides == stride].sum()} of stride {stride}" for stride in STRIDES]
    return (
        f"{num_boxes} boxes, {assignment.positive.sum()} positive anchors ({', '.join(by_level)}), "
        f"boxes without anchors: {num_boxes - num_with_anchors}"
    )


def draw_assignment(
    image_HW3: np.ndarray,
    boxes_xyxy_N4: np.ndarray,
    name_N: Sequence[str],
    center_P2: np.ndarray,
    stride_P: np.ndarray,
    box_P: np.ndarray,
) -> np.ndarray:
    """Draws N boxes, each in its own color, and their P positive anchors in the same colors, on a copy of a BGR image.

    Coordinates are pixels of the image; `box_P` is the index of each anchor's box. A caption has the class name and the
    number of anchors; a box without anchors is crossed out.
    """
    num_anchors_N = np.bincount(box_P, minlength=len(name_N))
    colours = [drawing.class_colour(box) for box in range(len(name_N))]
    captions = [f"{name} {count}" for name, count in zip(name_N, num_anchors_N.tolist(), strict=True)]
    image = drawing.draw_coloured(image_HW3, boxes_xyxy_N4, colours, captions)
    corners_N4 = np.rint(boxes_xyxy_N4).astype(int).tolist()
    for (x1, y1, x2, y2), count, colour in zip(corners_N4, num_anchors_N.tolist(), colours, strict=True):
        if not count:
            cv2.line(image, (x1, y1), (x2, y2), colour, 2, cv2.LINE_AA)
            cv2.line(image, (x1, y2), (x2, y1), colour, 2, cv2.LINE_AA)
    points = np.rint(center_P2).astype(int).tolist()
    for point, stride, box in zip(points, stride_P.tolist(), box_P.tolist(), strict=True):
        _draw_point(image, (point[0], point[1]), STRIDES.index(round(stride)), colours[box])
    return image


def _draw_point(image: np.ndarray, point: tuple[int, int], level: int, colour: tuple[int, int, int]) -> None:
    """Draws one anchor in place, with a black outline, since the color of its box may be that of the object."""
    x, y = point
    if level == 0:
        cv2.circle(image, point, _RADIUS, colour, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, point, _RADIUS, _BLACK, 1, cv2.LINE_AA)
        return
    reach = _RADIUS + level
    square = [(x - reach, y - reach), (x + reach, y - reach), (x + reach, y + reach), (x - reach, y + reach)]
    triangle = [(x, y - reach), (x + reach, y + reach), (x - reach, y + reach)]
    corners = np.array(square if level == 1 else triangle, np.int32)
    cv2.fillPoly(image, [corners], colour, cv2.LINE_AA)
    cv2.polylines(image, [corners], True, _BLACK, 1, cv2.LINE_AA)
