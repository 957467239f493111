"""What can be wrong with boxes that are each well formed. What is wrong with one alone, its source says already."""

from collections.abc import Callable, Iterator

import numpy as np

from yolox_jax.augment import geometry
from yolox_jax.boxes import cxcywh_to_xyxy, pairwise_intersection_and_union, xywh_to_cxcywh, xywh_to_xyxy
from yolox_jax.tools.doctor.annotated import Annotated
from yolox_jax.tools.doctor.findings import Finding, Severity

_SAME_IOU = 0.95  # of two boxes that are one, drawn or exported twice
_FEW = 10  # boxes: with fewer, a class is not learnt in training, and its AP is luck in validation
_LEARNT_SIDE, _FINEST_STRIDE = 1.0, 8.0  # input pixels
_MANY_EMPTY = 0.5  # of the images
_OVERHANG = 0.01  # of a side: tools round outwards by less
_MIN_OVERHANGING, _SHARE_OVERHANGING = 3, 0.05  # fewer may each be a mistake of its own


def check_boxes(split: Annotated, kind: str, size_hw: tuple[int, int], max_boxes: int) -> Iterator[Finding]:
    """All findings about a split's boxes. `kind` is the data set's, as in config.data.kind."""
    yield from _unit(split)
    yield from _format(split, kind)
    yield from _duplicates(split)
    yield from _small(split, size_hw)
    yield from _per_image(split, max_boxes)
    yield from _per_class(split)


def _as_written(boxes_xyxy: np.ndarray) -> np.ndarray:
    return boxes_xyxy


# How numbers that were read in the first format may have been meant, and how to make corners of them then.
_Reading = Callable[[np.ndarray], np.ndarray]
_MISREAD: dict[str, tuple[str, dict[str, _Reading]]] = {
    "coco": ("x, y, w, h", {"x1, y1, x2, y2": _as_written, "cx, cy, w, h": cxcywh_to_xyxy}),
    "yolo_txt": ("cx, cy, w, h", {"x1, y1, x2, y2": _as_written, "x, y, w, h": xywh_to_xyxy}),
}


def _unit(split: Annotated) -> Iterator[Finding]:
    """Fractions of the image where pixels belong: every box within the first pixel."""
    wh_N2 = split.sizes_wh[split.images]
    is_fraction_N = (split.corners_xyxy[:, 2:] <= 1 + _OVERHANG).all(axis=1) & (wh_N2 > 2).all(axis=1)
    if is_fraction_N.any():
        first = int(np.argmax(is_fraction_N))
        what = (
            f"{is_fraction_N.sum()} of {len(is_fraction_N)} boxes lie within the image's first pixel, as fractions do"
        )
        yield _of_box(split, first, "error", "normalised-boxes", what, "multiply by the image's width and height")


def _format(split: Annotated, kind: str) -> Iterator[Finding]:
    """Boxes that pass the image's border, none of which would if their four numbers were meant in another way."""
    if kind not in _MISREAD:
        return
    as_read, readings = _MISREAD[kind]
    wh_N2 = split.sizes_wh[split.images]
    overhanging_N = ~_fits(split.corners_xyxy, wh_N2)
    if overhanging_N.sum() < max(_MIN_OVERHANGING, _SHARE_OVERHANGING * len(overhanging_N)):
        return
    written_N4 = split.boxes_xywh
    if kind == "yolo_txt":  # its centres have become corners
        written_N4 = xywh_to_cxcywh(written_N4)
    for meant, to_corners in readings.items():
        corners_N4 = to_corners(written_N4)
        if _fits(corners_N4, wh_N2).all() and (corners_N4[:, :2] < corners_N4[:, 2:]).all():
            what = (
                f"{overhanging_N.sum()} of {len(overhanging_N)} boxes pass the border of their image when read as {as_read}; "
                f"all lie inside as {meant}"
            )
            advice = f"write them as {as_read}"
            yield _of_box(split, int(np.argmax(overhanging_N)), "error", "wrong-box-format", what, advice)
            return


def _fits(corners_N4: np.ndarray, wh_N2: np.ndarray) -> np.ndarray:
    slack_N2 = np.maximum(_OVERHANG * wh_N2, 1.0)
    inside_N2 = (corners_N4[:, :2] >= -slack_N2) & (corners_N4[:, 2:] <= wh_N2 + slack_N2)
    return np.all(inside_N2, axis=1)


def _duplicates(split: Annotated) -> Iterator[Finding]:
    starts = np.searchsorted(split.images, np.arange(len(split.files) + 1))
    for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if end - first < 2:
            continue
        corners_G4 = split.corners_xyxy[first:end]
        shared_GG, union_GG = pairwise_intersection_and_union(corners_G4, corners_G4)
        for one, other in np.argwhere(np.triu(shared_GG >= _SAME_IOU * union_GG, 1)).tolist():
            name, other_name = (split.class_names[split.labels[first + i]] for i in (one, other))
            what = "the box is there twice" if name == other_name else f"the same box is also a {other_name}"
            yield _of_box(split, first + one, "warning", "duplicate-box", what, "delete one of the two")


def _small(split: Annotated, size_hw: tuple[int, int]) -> Iterator[Finding]:
    ratio_M = np.array([geometry.fit_ratio((h, w), size_hw) for w, h in split.sizes_wh.tolist()])
    side_N = split.boxes_xywh[:, 2:].min(axis=1) * ratio_M[split.images]
    at = f"at the input size of {size_hw[0]}x{size_hw[1]}"
    for box in np.flatnonzero(side_N <= _LEARNT_SIDE).tolist():
        what = f"the box's shorter side is {side_N[box]:.2g} pixels {at}: it is not learnt"
        yield _of_box(split, box, "warning", "box-below-1-pixel", what, "raise config.input_size, or cut images up")
    small_N = (side_N > _LEARNT_SIDE) & (side_N < _FINEST_STRIDE)
    if small_N.any():
        smallest = int(np.argmin(np.where(small_N, side_N, np.inf)))
        what = (
            f"{small_N.sum()} of {len(small_N)} boxes ({small_N.mean():.1%}) are smaller than {_FINEST_STRIDE:.0f} pixels "
            f"{at}, the finest stride; this one {side_N[smallest]:.2g}"
        )
        advice = "expect few of them found, or raise config.input_size"
        yield _of_box(split, smallest, "note", "boxes-below-8-pixels", what, advice)


def _per_image(split: Annotated, max_boxes: int) -> Iterator[Finding]:
    num_boxes_M = np.bincount(split.images, minlength=len(split.files))
    for image in np.flatnonzero(num_boxes_M > max_boxes).tolist():
        what = f"{num_boxes_M[image]} boxes, but config.data.max_boxes is {max_boxes}: the rest is dropped"
        advice = f"set --config.data.max_boxes={num_boxes_M.max()} or more; a mosaic has the boxes of four images"
        yield Finding("warning", "too-many-boxes", split.split, *_image(split, image), what, advice, image)
    empty = np.flatnonzero(num_boxes_M == 0).tolist()
    if empty:
        share = len(empty) / len(num_boxes_M)
        severity: Severity = "warning" if share > _MANY_EMPTY else "note"
        what = f"{len(empty)} of {len(num_boxes_M)} images ({share:.1%}) have no boxes, this one the first"
        advice = "nothing, if nothing is in them: they are learnt as background"
        yield Finding(severity, "images-without-boxes", split.split, *_image(split, empty[0]), what, advice, empty[0])


def _per_class(split: Annotated) -> Iterator[Finding]:
    for label, count in enumerate(np.bincount(split.labels, minlength=len(split.class_names)).tolist()):
        record = f"class {split.class_names[label]}"
        if count == 0:
            advice = "add examples, or take the class out of the list"
            yield Finding("warning", "class-without-boxes", split.split, "", record, "no box of this class", advice)
        elif count < _FEW:
            what, advice = (
                f"{count} of {len(split.labels)} boxes are of this class",
                f"add examples: fewer than {_FEW} say little",
            )
            yield Finding("warning", "class-with-few-boxes", split.split, "", record, what, advice)


def _of_box(split: Annotated, box: int, severity: Severity, code: str, what: str, advice: str) -> Finding:
    image = int(split.images[box])
    return Finding(severity, code, split.split, split.files[image], split.record(box), what, advice, image)


def _image(split: Annotated, image: int) -> tuple[str, str]:
    return split.files[image], f"image {split.image_ids[image]}"
