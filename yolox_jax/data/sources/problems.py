"""Names, detects and logs the faults in a data set's files."""

import collections
import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeGuard

from yolox_jax.errors import UserError
from yolox_jax.types import Problem

logger = logging.getLogger("yolox_jax.data")

MISSING_FILE = "missing image file"
REPEATED_IMAGE = "image is listed more than once"
NOT_AN_IMAGE = "not a known kind of image file"
UNKNOWN_FORMAT = "image with labels is not of a known kind"
NO_IMAGE_SIZE = "size of the image is not stated"
MISSING_ANNOTATIONS = "missing annotation file"
UNMATCHED_LABELS = "label file belongs to no image"
UNREADABLE_ANNOTATIONS = "annotation file cannot be read"
UNKNOWN_IMAGE = "annotation of an image that is not listed"
UNKNOWN_CATEGORY = "annotation of a category that is not listed"
SHIFTED_CATEGORIES = "category ids are shifted by one against the list"
NO_AREA = "area is not a positive number"
NOT_FOUR_NUMBERS = "box is not four finite numbers"
NO_SIZE = "box has no size"
EMPTY_BBOX = "bbox is empty beside a segmentation"
OUTSIDE = "box is entirely outside its image"
PARTLY_OUTSIDE = "box is partly outside its image"
NOT_NUMBERS = "line has something other than numbers"
NOT_A_BOX = "line is neither a box nor a polygon"
MORE_COLUMNS = "lines have more numbers than a box"
NOT_NORMALISED = "coordinate is not a fraction of the image's side"
REPEATED_FIELD = "object has a field twice, with different values"
NOT_A_FLAG = "flag is neither 0 nor 1"
MANY_CROWDS = "most annotations are crowds (iscrowd 1), which are not learned"
SAME_NAME = "classes have the same name"
FEW_USABLE = "fewer than half of the annotations are used"

_OVERHANG = 1.0  # pixels: annotation tools round outwards, so an overhang up to this is not reported
_MIN_SHIFTED = 3  # annotations: fewer may be unrelated mistakes
LINES_PER_KIND = 10  # in the log, since a systematic fault is in every record


class SourceError(UserError):
    """A split cannot be used. `problems` are the faults that were found in its files until then."""

    def __init__(self, what: str, advice: str, problems: Sequence[Problem] = ()):
        super().__init__(what, advice)
        self.problems = tuple(problems)


def log_problems(problems: Iterable[Problem]) -> None:
    """Logs each problem as a warning: at most ten lines per kind, then one line with the number of the others."""
    by_kind: dict[str, list[Problem]] = collections.defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(problem)
    for kind, of_kind in by_kind.items():
        for problem in of_kind[:LINES_PER_KIND]:
            logger.warning("%s", problem)
        num_rest = len(of_kind) - LINES_PER_KIND
        if num_rest > 0:
            logger.warning("%s: %s: %d more like these", of_kind[0].file, kind, num_rest)


def box_fault(xywh: object, width: int, height: int) -> str | None:
    """Returns the fault of a box (x, y of its top left corner, w, h; pixels) in an image of this size, or None.

    A box that is `PARTLY_OUTSIDE` can be clipped; one with any other fault cannot be used.
    """
    if not is_four_numbers(xywh):
        return NOT_FOUR_NUMBERS
    x, y, w, h = xywh
    if w <= 0 or h <= 0:
        return NO_SIZE
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return OUTSIDE
    if max(-x, -y, x + w - width, y + h - height) > _OVERHANG:
        return PARTLY_OUTSIDE
    return None


def is_four_numbers(xywh: object) -> TypeGuard[Sequence[float]]:
    """Returns True for a list of four finite numbers."""
    return isinstance(xywh, list | tuple) and len(xywh) == 4 and all(map(is_finite, xywh))


def is_finite(value: object) -> bool:
    """Returns True for a number from a json file that is neither NaN nor infinite; true and false are not numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shifted_ids(used: Mapping[int, int], listed: Collection[int], file: str) -> list[Problem]:
    """Returns one problem if some used ids are not listed, but all used ids would be if shifted by one.

    `used` maps each id to the number of its annotations.
    """
    num_unlisted = sum(count for id, count in used.items() if id not in listed)
    fits = any({id + shift for id in used} <= set(listed) for shift in (1, -1))
    if num_unlisted < _MIN_SHIFTED or not fits:
        return []
    found = f"{min(used)} to {max(used)} are used, {min(listed)} to {max(listed)} are listed"
    return [Problem(SHIFTED_CATEGORIES, file, "all annotations", found, "the ids are used as they are")]
