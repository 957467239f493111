"""The sheet of a small, hand-made assignment."""

import numpy as np
import pytest

from yolox_jax.detection.anchors import STRIDES, make_anchors
from yolox_jax.types import Assignment, Batch
from yolox_jax.visualize import assignment_sheet, drawing, sheets

_SIZE = 320
_BOXES = [[20, 20, 90, 90], [120, 20, 290, 200], [20, 220, 100, 300]]
_SLOTS = [0, 2, 3]  # of four slots; slot 1 is padding


@pytest.fixture(scope="module")
def anchors():
    return make_anchors((_SIZE, _SIZE))


@pytest.fixture(scope="module")
def batch():
    boxes, mask = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4), np.bool_)
    boxes[0, _SLOTS], mask[0, _SLOTS] = _BOXES, True
    return Batch(np.zeros((1, _SIZE, _SIZE, 3), np.uint8), boxes, np.array([[1, 0, 0, 1]], np.int32), mask)


def _nearest(anchors, stride, point):
    distances = np.abs(np.asarray(anchors.centers) - point).sum(axis=1)
    return int(np.argmin(np.where(np.asarray(anchors.strides) == stride, distances, np.inf)))


@pytest.fixture(scope="module")
def assignment(anchors):
    """One anchor of stride 8 for the first box, one of each other level for the second, none for the third."""
    positive, gt_index = np.zeros((1, len(anchors.strides)), np.bool_), np.ones((1, len(anchors.strides)), np.int32)
    for stride, point, slot in ((8, (60, 60), 0), (16, (180, 80), 2), (32, (240, 140), 2)):
        each = _nearest(anchors, stride, point)
        positive[0, each], gt_index[0, each] = True, slot
    return Assignment(positive, gt_index, np.zeros_like(gt_index, np.float32))


@pytest.fixture(scope="module")
def picture(batch, assignment, anchors):
    sheet = assignment_sheet.draw_sheet(batch, assignment, anchors, ("cat", "dog"))
    assert sheet.shape == (640 + sheets.TITLE_HEIGHT, 640, 3)
    return sheet[sheets.TITLE_HEIGHT :]


def test_a_positive_anchor_is_drawn_in_the_color_of_its_box_and_in_the_shape_of_its_level(picture, assignment, anchors):
    shapes = []
    for each in np.flatnonzero(assignment.positive[0]):
        x, y = (2 * np.asarray(anchors.centers)[each]).astype(int)
        box = _SLOTS.index(assignment.gt_index[0, each])
        np.testing.assert_array_equal(picture[y, x], drawing.class_colour(box))
        shapes.append((picture[y - 8 : y + 9, x - 8 : x + 9] == drawing.class_colour(box)).all(axis=2).tobytes())
    assert len(set(shapes)) == 3


def test_only_the_box_without_anchors_is_crossed_out(picture):
    for box, (x1, y1, x2, y2) in enumerate(_BOXES):
        on_diagonal = picture[2 * y1 + (y2 - y1) // 2, 2 * x1 + (x2 - x1) // 2]  # a quarter of the way
        assert (on_diagonal == drawing.class_colour(box)).all() == (box == 2)


def test_the_summary_counts_boxes_anchors_by_level_and_boxes_without_anchors(batch, assignment, anchors):
    assert STRIDES == (8, 16, 32)
    assert assignment_sheet.summary(batch, assignment, anchors) == (
        "3 boxes, 3 positive anchors (1 of stride 8, 1 of stride 16, 1 of stride 32), boxes without anchors: 1"
    )
