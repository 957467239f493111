"""Checks boxes against each other, their images and the config. Faults of single records are noted by the source."""

from collections.abc import Callable, Iterator

import numpy as np

from yolox_jax.augment import geometry
from yolox_jax.boxes import cxcywh_to_xyxy, pairwise_intersection_and_union, xywh_to_cxcywh, xywh_to_xyxy
from yolox_jax.tools.doctor.annotations import SplitAnnotations
from yolox_jax.tools.doctor.findings import Finding, Severity

_DUPLICATE_IOU = 0.95  # two boxes that overlap this much are one box, drawn or exported twice
_FEW_BOXES = 10  # of a class: too few to learn it in training, and its AP is noise in validation
_MIN_SIDE = 1.0  # input pixels; config.min_box_side by default: training drops smaller boxes
_FINEST_STRIDE = 8.0  # input pixels
_MANY_EMPTY = 0.5  # share of the images
_OVERHANG = 0.01  # of a side: annotation tools round outwards by less
# Boxes across the border are evidence of another format only in numbers: a few may each be a mistake of its own.
_MIN_OVERHANGING, _SHARE_OVERHANGING = 3, 0.05


def check_boxes(split: SplitAnnotations, kind: str, size_hw: tuple[int, int], max_boxes: int) -> Iterator[Finding]:
    """Yields all findings about a split's boxes. `kind` is config.data.kind."""
    yield from _fractions(split)
    yield from _other_format(split, kind)
    yield from _duplicates(split)
    yield from _small(split, size_hw)
    yield from _per_image(split, max_boxes)
    yield from _per_class(split)


def _unchanged(boxes_xyxy: np.ndarray) -> np.ndarray:
    return boxes_xyxy


# For each kind of data set: the format in which its four numbers are read, and the formats that may have been written
# instead, each with the conversion of those numbers to xyxy.
_ToXyxy = Callable[[np.ndarray], np.ndarray]
_FORMATS: dict[str, tuple[str, dict[str, _ToXyxy]]] = {
    "coco": ("x, y, w, h", {"x1, y1, x2, y2": _unchanged, "cx, cy, w, h": cxcywh_to_xyxy}),
    "yolo_txt": ("cx, cy, w, h", {"x1, y1, x2, y2": _unchanged, "x, y, w, h": xywh_to_xyxy}),
}


def _fractions(split: SplitAnnotations) -> Iterator[Finding]:
    """Finds boxes within the first pixel of their image: fractions of its size, written where pixels are expected."""
    wh_N2 = split.sizes_wh[split.image_index]
    is_fraction_N = (split.boxes_xyxy[:, 2:] <= 1 + _OVERHANG).all(axis=1) & (wh_N2 > 2).all(axis=1)
    if is_fraction_N.any():
        what = (
            f"{is_fraction_N.sum()} of {len(is_fraction_N)} boxes lie within the first pixel of their image: "
            "they are probably fractions of its size, not pixels; this one is the first"
        )
        advice = "multiply x and w by the image's width, y and h by its height"
        yield _of_box(split, int(np.argmax(is_fraction_N)), "error", "normalised-boxes", what, advice)


def _other_format(split: SplitAnnotations, kind: str) -> Iterator[Finding]:
    """Finds boxes that cross their image's border, although all lie inside if their numbers are read another way."""
    if kind not in _FORMATS:
        return
    as_read, others = _FORMATS[kind]
    wh_N2 = split.sizes_wh[split.image_index]
    overhanging_N = ~_are_inside(split.boxes_xyxy, wh_N2)
    if overhanging_N.sum() < max(_MIN_OVERHANGING, _SHARE_OVERHANGING * len(overhanging_N)):
        return
    # The numbers as they are in the file, in pixels: the source has made x, y, w, h of them.
    written_N4 = xywh_to_cxcywh(split.boxes_xywh) if kind == "yolo_txt" else split.boxes_xywh
    for meant, to_xyxy in others.items():
        xyxy_N4 = to_xyxy(written_N4)
        if _are_inside(xyxy_N4, wh_N2).all() and (xyxy_N4[:, :2] < xyxy_N4[:, 2:]).all():
            what = (
                f"{overhanging_N.sum()} of {len(overhanging_N)} boxes cross the border of their image if read as "
                f"{as_read}, but all boxes lie inside if read as {meant}; this one is the first"
            )
            advice = f"convert the boxes to {as_read}"
            yield _of_box(split, int(np.argmax(overhanging_N)), "error", "wrong-box-format", what, advice)
            return


def _are_inside(xyxy_N4: np.ndarray, wh_N2: np.ndarray) -> np.ndarray:
    """Returns [N] bool: whether a box lies inside its image, with some tolerance for rounding."""
    slack_N2 = np.maximum(_OVERHANG * wh_N2, 1.0)
    inside_N2 = (xyxy_N4[:, :2] >= -slack_N2) & (xyxy_N4[:, 2:] <= wh_N2 + slack_N2)
    return np.all(inside_N2, axis=1)


def _duplicates(split: SplitAnnotations) -> Iterator[Finding]:
    starts = np.searchsorted(split.image_index, np.arange(len(split.files) + 1))
    for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if end - first < 2:
            continue
        xyxy_G4 = split.boxes_xyxy[first:end]
        intersection_GG, union_GG = pairwise_intersection_and_union(xyxy_G4, xyxy_G4)
        for one, other in np.argwhere(np.triu(intersection_GG >= _DUPLICATE_IOU * union_GG, 1)).tolist():
            name, other_name = (split.class_names[split.labels[first + i]] for i in (one, other))
            what = (
                "this box is annotated twice" if name == other_name else f"this box is also annotated as {other_name}"
            )
            yield _of_box(split, first + one, "warning", "duplicate-box", what, "delete one of the two")


def _small(split: SplitAnnotations, size_hw: tuple[int, int]) -> Iterator[Finding]:
    ratio_M = np.array([geometry.fit_ratio((h, w), size_hw) for w, h in split.sizes_wh.tolist()])
    side_N = split.boxes_xywh[:, 2:].min(axis=1) * ratio_M[split.image_index]
    at = f"at the input size of {size_hw[0]}x{size_hw[1]}"
    for box in np.flatnonzero(side_N <= _MIN_SIDE).tolist():
        what = f"the shorter side of this box is {side_N[box]:.2g} pixels {at}: training drops it"
        advice = "raise config.input_size, or cut the images into tiles"
        yield _of_box(split, box, "warning", "box-below-1-pixel", what, advice)
    small_N = (side_N > _MIN_SIDE) & (side_N < _FINEST_STRIDE)
    if small_N.any():
        smallest = int(np.argmin(np.where(small_N, side_N, np.inf)))
        what = (
            f"{small_N.sum()} of {len(small_N)} boxes ({small_N.mean():.1%}) have a side shorter than "
            f"{_FINEST_STRIDE:.0f} pixels, the finest stride, {at}; the smallest is this one, {side_N[smallest]:.2g}"
        )
        advice = "expect that few of them are detected, or raise config.input_size"
        yield _of_box(split, smallest, "note", "boxes-below-8-pixels", what, advice)


def _per_image(split: SplitAnnotations, max_boxes: int) -> Iterator[Finding]:
    num_boxes_M = np.bincount(split.image_index, minlength=len(split.files))
    for image in np.flatnonzero(num_boxes_M > max_boxes).tolist():
        what = f"{num_boxes_M[image]} boxes, but config.data.max_boxes is {max_boxes}: training drops the rest"
        advice = f"set --config.data.max_boxes={num_boxes_M.max()} or more (a mosaic has the boxes of four images)"
        yield Finding("warning", "too-many-boxes", split.split, *_image(split, image), what, advice, image)
    empty = np.flatnonzero(num_boxes_M == 0).tolist()
    if empty:
        share = len(empty) / len(num_boxes_M)
        severity: Severity = "warning" if share > _MANY_EMPTY else "note"
        what = f"{len(empty)} of {len(num_boxes_M)} images ({share:.1%}) have no boxes; this is the first of them"
        advice = "check that they show no objects: they are used as background"
        yield Finding(severity, "images-without-boxes", split.split, *_image(split, empty[0]), what, advice, empty[0])


def _per_class(split: SplitAnnotations) -> Iterator[Finding]:
    for label, count in enumerate(np.bincount(split.labels, minlength=len(split.class_names)).tolist()):
        record = f"class {split.class_names[label]}"
        if count == 0:
            advice = "add examples, or take the class out of the list"
            yield Finding("warning", "class-without-boxes", split.split, "", record, "no box has this class", advice)
        elif count < _FEW_BOXES:
            what = f"only {count} of {len(split.labels)} boxes have this class"
            advice = f"add examples: fewer than {_FEW_BOXES} are too few to learn a class, or to measure its AP"
            yield Finding("warning", "class-with-few-boxes", split.split, "", record, what, advice)


def _of_box(split: SplitAnnotations, box: int, severity: Severity, code: str, what: str, advice: str) -> Finding:
    image = int(split.image_index[box])
    return Finding(severity, code, split.split, split.files[image], split.record(box), what, advice, image)


def _image(split: SplitAnnotations, image: int) -> tuple[str, str]:
    """File and record of a finding about an image."""
    return split.files[image], f"image {split.image_ids[image]}"
