"""The bounding boxes of COCO's segmentations, for annotations that have no bbox."""

import itertools
from typing import Any

from yolox_jax.data.sources.problems import is_finite

Box = tuple[float, float, float, float]  # x, y, w, h in pixels


def bounding_box(segmentation: Any) -> Box | None:
    """Returns the box of polygons or of a run-length encoded mask, as COCO's toBbox does; None if it is neither."""
    if isinstance(segmentation, dict):
        return _box_of_runs(segmentation)
    if isinstance(segmentation, list) and segmentation:
        return _box_of_polygons(segmentation if isinstance(segmentation[0], list) else [segmentation])
    return None


def _box_of_polygons(polygons: list[Any]) -> Box | None:
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        is_right = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        if not is_right or not all(map(is_finite, polygon)):
            return None
        xs += polygon[::2]
        ys += polygon[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _box_of_runs(mask: dict[str, Any]) -> Box | None:
    """The runs of zeros and ones alternate, go down the columns, and begin with zeros."""
    size, counts = mask.get("size"), mask.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        return None
    runs = _decompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        return None
    height, width = size
    ends = list(itertools.accumulate(runs))
    if not ends or ends[-1] > height * width:
        return None
    of_ones = [(start, end - 1) for start, end in zip(ends[::2], ends[1::2], strict=False) if end > start]
    if not of_ones:
        return None
    left, right = of_ones[0][0] // height, of_ones[-1][1] // height
    # A run that reaches into the next column passes the last row of one and the first row of the other.
    crosses = any(first // height != last // height for first, last in of_ones)
    top = 0 if crosses else min(first % height for first, _ in of_ones)
    bottom = height - 1 if crosses else max(last % height for _, last in of_ones)
    return left, top, right - left + 1, bottom - top + 1


def _decompressed(text: str) -> list[int] | None:
    """Decodes COCO's compressed runs: five bits a character, from 48 on; from the third run on, differences."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return runs if shift == 0 else None
