"""Sorts mistakes into TIDE's six kinds, and computes the AP50 that each kind costs (arXiv 2008.08115, section 2)."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from yolox_jax.evaluation.image_boxes import ImageBoxes
from yolox_jax.evaluation.matching import MIN_IOU, Matches
from yolox_jax.evaluation.precision_recall import curves, mean_precision

KINDS = {
    "localization": "the right class, but IoU with the box only 0.1 to 0.5",
    "classification": "on a box of another class",
    "duplicate": "on a box that has a better detection",
    "background": "on no box: IoU below 0.1 with all",
    "both": "near a box of another class, with IoU only 0.1 to 0.5",
    "missed": "a box without a detection, not even one of the first two kinds",
}
_LOCALIZATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND, _BOTH = range(5)
_NO_ERROR = -1
_BACKGROUND_IOU = 0.1


@dataclasses.dataclass(frozen=True)
class ErrorKind:
    """One kind of mistakes, their number above a score threshold, and the AP50 that a run without them would gain."""

    name: str
    count: int
    lost_ap50: float


@dataclasses.dataclass(frozen=True)
class _Errors:
    """The kind of each detection (_NO_ERROR if it is correct or ignored), its box, and the missed boxes."""

    kind_D: np.ndarray
    gt_index_D: np.ndarray  # of a correct detection, or the box that the first two kinds aim at
    missed_G: np.ndarray  # bool


def error_kinds(
    images: Sequence[ImageBoxes], matches: Sequence[Matches], num_classes: int, threshold: float
) -> list[ErrorKind]:
    """Counts the mistakes of each kind above `threshold`, and mends one kind after the other for its AP50.

    As in the official tidecv, a box without a correct detection gets the best one of the first two kinds that aims at
    it, if that is of the kind to mend. The kind's other detections are left out, and missed boxes do not count.
    """
    errors = [_find(image, match) for image, match in zip(images, matches, strict=True)]
    above = [_above(image, match, threshold) for image, match in zip(images, matches, strict=True)]
    shown = [_find(*pair) for pair in above]
    before = _ap50(zip(images, matches, strict=True), num_classes)
    rows = []
    for number, name in enumerate(KINDS):
        if name == "missed":
            count = sum(int(each.missed_G.sum()) for each in shown)
        else:
            count = sum(int((each.kind_D == number).sum()) for each in shown)
        mended = [_mend(image, match, each, number) for image, match, each in zip(images, matches, errors, strict=True)]
        rows.append(ErrorKind(name, count, _ap50(mended, num_classes) - before))
    return rows


def _find(image: ImageBoxes, matches: Matches) -> _Errors:
    wrong_D = ~matches.true_positive_D & ~matches.ignored_D
    used_G = np.zeros(len(image.gt_label_G), np.bool_)
    used_G[matches.gt_index_D[matches.true_positive_D]] = True
    real_G = ~image.crowd_G
    iou_DG = np.where(real_G[None, :], image.iou_DG(), 0.0)
    same_DG = image.pred_label_D[:, None] == image.gt_label_G[None, :]
    of_class_DG, of_others_DG = np.where(same_DG, iou_DG, 0.0), np.where(same_DG, 0.0, iou_DG)
    of_class_D, of_others_D, of_used_D, of_any_D = (
        each.max(axis=1, initial=0.0) for each in (of_class_DG, of_others_DG, of_class_DG * used_G, iou_DG)
    )
    kind_D = np.select(
        [
            ~wrong_D,
            (of_class_D >= _BACKGROUND_IOU) & (of_class_D < MIN_IOU),
            of_others_D >= MIN_IOU,
            of_used_D >= MIN_IOU,
            of_any_D < _BACKGROUND_IOU,
        ],
        [_NO_ERROR, _LOCALIZATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND],
        _BOTH,
    )
    gt_index_D = matches.gt_index_D.copy()
    for kind, aimed_DG in ((_LOCALIZATION, of_class_DG), (_CLASSIFICATION, of_others_DG)):
        of_kind_D = kind_D == kind
        if of_kind_D.any():
            gt_index_D[of_kind_D] = aimed_DG[of_kind_D].argmax(axis=1)
    covered_G = used_G.copy()
    covered_G[gt_index_D[(kind_D == _LOCALIZATION) | (kind_D == _CLASSIFICATION)]] = True
    return _Errors(kind_D, gt_index_D, real_G & ~covered_G)


def _mend(image: ImageBoxes, matches: Matches, errors: _Errors, kind: int) -> tuple[ImageBoxes, Matches]:
    """Returns the boxes and matches as they would be without the errors of a kind; what is left out is ignored."""
    if kind > _BOTH:
        return dataclasses.replace(image, crowd_G=image.crowd_G | errors.missed_G), matches
    of_kind_D = errors.kind_D == kind
    true_positive_D, ignored_D = matches.true_positive_D.copy(), matches.ignored_D | of_kind_D
    label_D = image.pred_label_D
    if kind in (_LOCALIZATION, _CLASSIFICATION):
        used_G = errors.gt_index_D[matches.true_positive_D]
        aims_D = (errors.kind_D == _LOCALIZATION) | (errors.kind_D == _CLASSIFICATION)
        candidates = np.flatnonzero(aims_D & ~np.isin(errors.gt_index_D, used_G))  # best score first
        _, first = np.unique(errors.gt_index_D[candidates], return_index=True)
        best = candidates[first]
        best = best[of_kind_D[best]]
        true_positive_D[best], ignored_D[best] = True, False
        label_D = label_D.copy()
        label_D[best] = image.gt_label_G[errors.gt_index_D[best]]
    mended = dataclasses.replace(matches, true_positive_D=true_positive_D, ignored_D=ignored_D)
    return dataclasses.replace(image, pred_label_D=label_D), mended


def _above(image: ImageBoxes, matches: Matches, threshold: float) -> tuple[ImageBoxes, Matches]:
    """Leaves out the detections below a score threshold. A match never depends on detections of lower score."""
    kept = image.score_D >= threshold
    names = ("pred_xyxy_D4", "pred_label_D", "score_D")
    return (
        dataclasses.replace(image, **{name: getattr(image, name)[kept] for name in names}),
        Matches(matches.true_positive_D[kept], matches.gt_index_D[kept], matches.ignored_D[kept]),
    )


def _ap50(pairs: Iterable[tuple[ImageBoxes, Matches]], num_classes: int) -> float:
    pairs = list(pairs)
    _, per_class = curves([image for image, _ in pairs], [match for _, match in pairs], num_classes)
    return float(mean_precision(per_class).mean())
