"""Recognizes what the lines of a YOLO data set are: boxes, polygons, or boxes followed by keypoints or other columns.

A line `class cx cy w h x1 y1 …` with keypoints may have as many numbers as one with a polygon. All lines of a split
together show which it is: they have one length, the first four numbers are a box in the image, and the points are in
that box. If they could be polygons as well, neither is chosen.
"""

import dataclasses

import numpy as np

from yolox_jax.errors import UserError

_TOLERANCE = 0.01  # of a side, as for boxes
_MARGIN = 0.25  # of a box's side: a keypoint may be this far outside its box
_MOST_POINTS = 0.75  # share of a line's keypoints that must lie within that margin
_MOST_LINES = 0.95  # share of the lines that must fit; the others are taken for mistakes
_MOST_OF_ONE_LENGTH = 0.8  # share of the longer lines; the lengths of polygons differ more
_ENOUGH = 1000  # lines that show whether their lengths differ
_MANY = 4  # numbers that are whole by chance: fewer prove nothing


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the numbers after the class are read: four are a box, and more a polygon or a box with other columns."""

    length: int | None = None  # of lines that begin with a box and have more columns; None if longer lines are polygons
    columns: str = ""  # what follows the box: "2 keypoints of 3 numbers"

    def is_box(self, num_values: int) -> bool:
        """Returns True if the first four of that many numbers are a box."""
        return num_values in (4, self.length)

    def is_polygon(self, num_values: int) -> bool:
        """Returns True if that many numbers are the corners of a polygon."""
        return self.length is None and num_values >= 6 and num_values % 2 == 0


def of_keypoints(num_points: int, num_dims: int) -> Layout:
    """Returns the layout that the kpt_shape of a yaml states: polygons if it has no points."""
    if num_points == 0:
        return Layout()
    return Layout(4 + num_points * num_dims, f"{num_points} keypoints of {num_dims} numbers")


class Evidence:
    """Collects the longer lines of a split, and decides what they are."""

    def __init__(self) -> None:
        self._rows: dict[int, list[np.ndarray]] = {}  # by length
        self._first: dict[int, str] = {}  # file and line, by length
        self._num_boxes = 0
        self._num_longer = 0
        self._lengths_differ = False  # as those of polygons do

    def add(self, file: str, text: str) -> None:
        """Adds the lines of a label file."""
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split()
            self._num_boxes += len(words) == 5
            if self._lengths_differ or len(words) <= 5:
                continue
            try:
                values = np.array(words[1:], np.float64)
            except ValueError:
                continue  # YoloTxtSource reports it
            self._first.setdefault(len(values), f"{file}: line {number}")
            self._rows.setdefault(len(values), []).append(values)
            self._num_longer += 1
            if self._num_longer >= _ENOUGH and not self._of_one_length():
                self._lengths_differ = True
                self._rows.clear()

    def _of_one_length(self) -> list[np.ndarray]:
        """Returns the lines of the most frequent length if most have it, otherwise none."""
        rows = max(self._rows.values(), key=len, default=[])
        return rows if len(rows) >= _MOST_OF_ONE_LENGTH * self._num_longer else []

    def decide(self) -> Layout:
        """Returns the layout of the lines added.

        Raises:
          UserError: the lines may be polygons or boxes with keypoints; names the first of them.
        """
        rows = self._of_one_length()
        if not rows:
            return Layout()
        rows_LN = np.stack(rows)
        layout, is_certain = _with_columns(rows_LN, self._num_boxes > 0)
        if layout is None:
            return Layout()
        if is_certain or not _may_be_polygons(rows_LN):
            return layout
        if _are_parallelograms(rows_LN):
            return Layout()
        if not _are_likely_polygons(rows_LN):
            return layout
        length = rows_LN.shape[1]
        raise UserError(
            f"{self._first[length]}: its {length} numbers after the class may be a polygon or a box with "
            f"{layout.columns}; all {len(rows_LN)} lines like it may be both",
            "say in the yaml what they are, by kpt_shape: [number of keypoints, 2 or 3], or kpt_shape: [0, 0] for "
            "polygons",
        )


def _with_columns(rows_LN: np.ndarray, has_boxes: bool) -> tuple[Layout | None, bool]:
    """Returns the layout of a box and more columns that the lines fit, None if they fit none; True if by whole numbers.

    `has_boxes` says that there are lines of four numbers too, so that longer ones have no columns that all lines have.
    """
    num_lines, length = rows_LN.shape
    is_box_L = _are_boxes(rows_LN)
    if length in (5, 6) and not has_boxes:
        last_L2 = rows_LN[:, 4:]
        is_whole_L2 = (last_L2 == np.round(last_L2)) & (last_L2 >= 0)
        is_share_L2 = (last_L2 >= 0) & (last_L2 <= 1)
        if length == 5 and _mostly(is_box_L & (is_whole_L2 | is_share_L2)[:, 0]):
            return Layout(5, "a confidence or an id"), True
        for id, confidence in ((1, 0), (0, 1)) if length == 6 else ():
            if _mostly(is_box_L & is_whole_L2[:, id] & is_share_L2[:, confidence]):
                return Layout(6, "a confidence and an id"), num_lines >= _MANY
    for num_dims in (3, 2):
        num_points, rest = divmod(length - 4, num_dims)
        if rest or num_points < 1:
            continue
        points_LKD = rows_LN[:, 4:].reshape(num_lines, num_points, num_dims)
        fits_L = is_box_L & _are_in_boxes(points_LKD[..., :2], rows_LN)
        if num_dims == 3:
            fits_L &= np.isin(points_LKD[..., 2], (-1, 0, 1, 2)).all(axis=1)  # visibility
        if _mostly(fits_L):
            return of_keypoints(num_points, num_dims), num_dims == 3 and num_points * num_lines >= _MANY
    return None, False


def _mostly(fits_L: np.ndarray) -> bool:
    return bool(fits_L.mean() >= _MOST_LINES)


def _are_boxes(rows_LN: np.ndarray) -> np.ndarray:
    centers_L2, sides_L2 = rows_LN[:, :2], rows_LN[:, 2:4]
    low_L2, high_L2 = centers_L2 - sides_L2 / 2, centers_L2 + sides_L2 / 2
    is_side_right_L2 = (low_L2 >= -_TOLERANCE) & (high_L2 <= 1 + _TOLERANCE) & (sides_L2 > 0)
    return np.all(is_side_right_L2, axis=1)


def _are_in_boxes(points_LK2: np.ndarray, rows_LN: np.ndarray) -> np.ndarray:
    """Returns [L] bool. A point at (0, 0) or below 0 is one that was not annotated."""
    offsets_LK2 = np.abs(points_LK2 - rows_LN[:, None, :2])
    is_in_LK = (offsets_LK2 <= rows_LN[:, None, 2:4] * (0.5 + _MARGIN) + _TOLERANCE).all(axis=2)
    is_annotated_LK = (points_LK2 > 0).any(axis=2) & (points_LK2 >= 0).all(axis=2)
    fits_L: np.ndarray = (is_in_LK & is_annotated_LK).sum(axis=1) >= _MOST_POINTS * is_annotated_LK.sum(axis=1)
    return fits_L


def _may_be_polygons(rows_LN: np.ndarray) -> bool:
    is_fraction_LN = (rows_LN >= -_TOLERANCE) & (rows_LN <= 1 + _TOLERANCE)
    return rows_LN.shape[1] % 2 == 0 and _mostly(np.all(is_fraction_LN, axis=1))


def _are_parallelograms(rows_LN: np.ndarray) -> bool:
    """Returns True for the four corners of rotated boxes."""
    if rows_LN.shape[1] != 8:
        return False
    corners_L42 = rows_LN.reshape(-1, 4, 2)
    gaps_L2 = corners_L42[:, 0] + corners_L42[:, 2] - corners_L42[:, 1] - corners_L42[:, 3]
    return _mostly((np.abs(gaps_L2) <= _TOLERANCE).all(axis=1))


def _are_likely_polygons(rows_LN: np.ndarray) -> bool:
    """Returns True unless the second corner, which would be a box's width and height, is far from the others."""
    corners_LK2 = rows_LN.reshape(len(rows_LN), -1, 2)
    others_LK2 = np.delete(corners_LK2, 1, axis=1)
    low_L2, high_L2 = others_LK2.min(axis=1), others_LK2.max(axis=1)
    reach_L1 = (high_L2 - low_L2).max(axis=1, keepdims=True) + _TOLERANCE
    second_L2 = corners_LK2[:, 1]
    is_near_L = ((second_L2 >= low_L2 - reach_L1) & (second_L2 <= high_L2 + reach_L1)).all(axis=1)
    return bool(is_near_L.mean() >= 0.5)
