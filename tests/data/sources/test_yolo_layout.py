"""Keypoints, ids and confidences after a box are told apart from polygons by all lines of a split, or refused."""

import numpy as np
import pytest

from tests.data.sources.test_yolo_txt import LINE, YAML, Folder
from yolox_jax.data.sources import problems
from yolox_jax.data.sources.yolo_layout import Evidence, Layout, of_keypoints
from yolox_jax.errors import UserError


def decide(rows):
    evidence = Evidence()
    for number, row in enumerate(rows):
        evidence.add(f"{number}.txt", "0 " + " ".join(f"{value:.6g}" for value in row))
    return evidence.decide()


def boxes(rng, number):
    sides = rng.uniform(0.02, 0.3, (number, 2))
    return np.concatenate([rng.uniform(sides / 2, 1 - sides / 2), sides], axis=1)


def with_keypoints(seed, num_points, num_dims, number=30):
    """Lines of boxes with keypoints inside, some of them not annotated."""
    rng = np.random.default_rng(seed)
    box = boxes(rng, number)
    points = box[:, None, :2] + box[:, None, 2:] * rng.uniform(-0.5, 0.5, (number, num_points, 2))
    visible = rng.integers(0, 3, (number, num_points, 1))
    if num_dims == 3:
        points = np.concatenate([points * (visible > 0), visible], axis=2)
    return np.concatenate([box, points.reshape(number, -1)], axis=1)


def polygons(seed, num_corners, number=30, size=0.2):
    """Star-shaped polygons anywhere in the image."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (number, num_corners)), axis=1)
    radii = rng.uniform(0.3, 1, (number, num_corners)) * rng.uniform(0.05, size, (number, 1))
    center = rng.uniform(size, 1 - size, (number, 1, 2))
    return (center + radii[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=2)).reshape(number, -1)


@pytest.mark.parametrize("num_dims", [2, 3])
@pytest.mark.parametrize("num_points", [2, 3, 5, 17])
def test_lines_with_keypoints_in_their_boxes_are_boxes(num_points, num_dims):
    for seed in range(5):
        assert decide(with_keypoints(seed, num_points, num_dims)) == of_keypoints(num_points, num_dims)


@pytest.mark.parametrize("num_corners", [3, 4, 5, 8, 20])
def test_polygons_of_one_length_are_polygons(num_corners):
    for seed in range(20):
        assert decide(polygons(seed, num_corners)) == Layout()


def test_polygons_of_several_lengths_are_polygons_even_if_few_and_small():
    rows = [*polygons(0, 5, 3, 0.06), *polygons(1, 6, 3, 0.06), *polygons(2, 9, 3, 0.06)]
    assert decide(rows) == Layout()


def test_rotated_boxes_are_polygons():
    rng = np.random.default_rng(0)
    center, along = rng.uniform(0.3, 0.5, (40, 2)), rng.uniform(-0.05, 0.05, (40, 2))
    across = along[:, ::-1] * (1, -1) * rng.uniform(0.3, 1, (40, 1)) * (16 / 9, 9 / 16)
    corners = [center + along + across, center + along - across, center - along - across, center - along + across]
    assert decide(np.concatenate(corners, axis=1)) == Layout()


def test_points_that_are_not_annotated_and_a_few_wrong_lines_do_not_matter():
    rows = with_keypoints(0, 5, 2, 60)
    rows[:7, 4:] = -1
    rows[7, 4:] = 0
    rows[8, 4:] = 0.999
    assert decide([*rows, rows[0, :9], rows[1, :12]]) == of_keypoints(5, 2)


@pytest.mark.parametrize(
    ("columns", "layout"),
    [
        (lambda n: [n / 40], Layout(5, "a confidence or an id")),
        (lambda n: [n], Layout(5, "a confidence or an id")),
        (lambda n: [n / 40, n], Layout(6, "a confidence and an id")),
        (lambda n: [n, n / 40], Layout(6, "a confidence and an id")),
        (lambda n: [n / 40, 1], Layout(6, "a confidence and an id")),
    ],
)
def test_a_confidence_and_an_id_after_each_box_are_recognized(columns, layout):
    box = boxes(np.random.default_rng(0), 30)
    assert decide([[*row, *columns(number)] for number, row in enumerate(box, 1)]) == layout


def test_lines_that_may_be_both_are_refused_with_the_first_file_and_line():
    # A pentagon around (0.4, 0.4) that is a box of 0.4 by 0.4 with three points in it, too.
    row = [0.42, 0.4, 0.4, 0.44, 0.36, 0.41, 0.37, 0.37, 0.4, 0.36]
    with pytest.raises(UserError, match=r"0\.txt: line 1: .* a polygon or a box with 3 keypoints .*kpt_shape"):
        decide([row] * 5)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


KEYPOINTS = "0 0.75 0.68 0.2 0.3 0.72 0.6 0.78 0.6 0.75 0.68 0.72 0.75 0.78 0.75"


def test_the_boxes_of_a_split_with_keypoints_are_used_and_its_columns_are_reported(folder):
    folder.add("train/a", KEYPOINTS, LINE)
    source = folder.open()
    np.testing.assert_allclose(source[0].boxes_xyxy, [[39, 21.2, 51, 33.2], [22.5, 10, 37.5, 30]], rtol=1e-5)
    (problem,) = source.problems
    assert problem.kind == problems.MORE_COLUMNS
    assert problem.found == "5 keypoints of 2 numbers after each box"


def test_kpt_shape_decides_without_a_report(folder):
    folder.add("train/a", KEYPOINTS, "0 0.1 0.1 0.2 0.1 0.1 0.3")
    source = folder.open(f"{YAML}kpt_shape: [5, 2]\n")
    assert source.num_boxes(0) == 1
    assert [problem.kind for problem in source.problems] == [problems.NOT_A_BOX]
    source = folder.open(f"{YAML}kpt_shape: [0, 0]\n")
    assert source.num_boxes(0) == 2
    assert source.problems == []
