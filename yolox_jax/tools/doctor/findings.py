"""A finding of the doctor: one fault, where it is, and what to do about it."""

import dataclasses
from typing import Literal

from yolox_jax.data.sources import problems
from yolox_jax.errors import short_lines
from yolox_jax.types import Problem

# error: data is left out, refused or misread. warning: usable, but probably not as intended. note: good to know.
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True)
class Finding:
    """A fault of one record, or of a whole split if every record has it."""

    severity: Severity
    code: str  # "duplicate-box"; the report groups findings by it
    split: str
    file: str
    record: str  # "image 17, box 2"
    what: str
    advice: str
    image: int | None = None  # index into the split's source of an image that shows the fault

    def __str__(self) -> str:
        """File, record and fault, without the advice, which many findings share."""
        file = "" if self.file in self.what else self.file  # the error of an image file names it already
        return short_lines(": ".join(part for part in (file, self.record, self.what) if part))


def from_problem(problem: Problem, split: str) -> Finding:
    """Makes a finding of a problem that a source noted when it was opened."""
    severity, code, advice = _OF_KIND[problem.kind]
    what = f"{problem.kind}: {problem.found} ({problem.action})"
    return Finding(severity, code, split, problem.file, problem.record, what, advice)


_YOLO_LINE = "write the line as: class cx cy w h"
_OF_KIND: dict[str, tuple[Severity, str, str]] = {
    problems.MISSING_FILE: ("error", "missing-image", "put the file there, or delete its record"),
    problems.REPEATED_IMAGE: ("warning", "repeated-image", "list it once"),
    problems.NOT_AN_IMAGE: ("warning", "not-an-image", "move it out of the folder, or convert it to JPEG or PNG"),
    problems.UNKNOWN_FORMAT: ("error", "unknown-format", "convert it to JPEG or PNG"),
    problems.NO_IMAGE_SIZE: ("warning", "no-image-size", "add the image's width and height"),
    problems.MISSING_ANNOTATIONS: (
        "error",
        "missing-annotations",
        "check the folder and the name of the annotation file",
    ),
    problems.UNMATCHED_LABELS: ("error", "unmatched-labels", "give it the name and the folder of its image"),
    problems.UNREADABLE_ANNOTATIONS: ("error", "unreadable-annotations", "copy or export the file again"),
    problems.UNKNOWN_IMAGE: ("error", "unknown-image", "add the image to the list, or delete the annotation"),
    problems.UNKNOWN_CATEGORY: ("error", "unknown-category", "add the class to the list, or correct the annotation"),
    problems.SHIFTED_CATEGORIES: (
        "error",
        "shifted-categories",
        "let the ids of the list and of the annotations start at the same number",
    ),
    problems.NO_AREA: ("error", "no-area", "correct the area, or delete the field"),
    problems.NOT_FOUR_NUMBERS: ("error", "not-four-numbers", "write four numbers, or delete the annotation"),
    problems.EMPTY_BBOX: ("warning", "empty-bbox", "write the box of the segmentation, unless that is wrong"),
    problems.NO_SIZE: ("error", "box-without-size", "draw the box again, or delete the annotation"),
    problems.OUTSIDE: (
        "error",
        "box-outside",
        "check that the annotation belongs to this image and has its pixels, then correct or delete it",
    ),
    problems.PARTLY_OUTSIDE: ("warning", "box-partly-outside", "correct the box, unless it is meant to reach outside"),
    problems.NOT_NUMBERS: ("error", "not-numbers", _YOLO_LINE),
    problems.NOT_A_BOX: ("error", "not-a-box", _YOLO_LINE),
    problems.MORE_COLUMNS: ("note", "more-columns", "state keypoints in the yaml, by kpt_shape: [number, 2 or 3]"),
    problems.NOT_NORMALISED: ("error", "not-normalised", "divide x and w by the image's width, y and h by its height"),
    problems.REPEATED_FIELD: ("error", "repeated-field", "make two objects of it, or delete the wrong one"),
    problems.NOT_A_FLAG: ("warning", "not-a-flag", "write 0 or 1"),
    problems.MANY_CROWDS: (
        "error",
        "many-crowds",
        "write iscrowd 0 for single objects, or set --config.data.crowd_as_object=true",
    ),
    problems.SAME_NAME: (
        "error",
        "same-class-name",
        "rename one of them, or set --config.data.merge_same_names=true to make them one class",
    ),
    problems.FEW_USABLE: ("error", "few-usable", "correct what the other findings name"),
}
