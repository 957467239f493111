"""What a check of a data set says: one fault, where it is, and what to do about it."""

import dataclasses
from typing import Literal

from yolox_jax.data.sources import problems
from yolox_jax.data.sources.problems import Problem

# error: part of the data is left out, refused or taken wrongly. warning: usable, but look at it. note: good to know.
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault of a record or, where it is in all of them, of a split."""

    severity: Severity
    code: str  # "duplicate-box": what reports count by
    split: str
    file: str
    record: str  # "image 17, box 2"
    what: str
    advice: str
    image: int | None = None  # index into the split's source of a picture that shows it

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.record) if part)
        return f"{where}: {self.what}; {self.advice}"


def of_problem(problem: Problem, split: str) -> Finding:
    """A problem that a source noted when it was opened, as a finding."""
    severity, code, advice = _OF_KIND[problem.kind]
    what = f"{problem.kind}: {problem.found} ({problem.action})"
    return Finding(severity, code, split, problem.file, problem.record, what, advice)


_OF_KIND: dict[str, tuple[Severity, str, str]] = {
    problems.MISSING_FILE: ("error", "missing-image", "put the file back, or take its record out"),
    problems.REPEATED_IMAGE: ("warning", "repeated-image", "list it once"),
    problems.NOT_AN_IMAGE: ("warning", "not-an-image", "move it out of the folder, or convert it to JPEG or PNG"),
    problems.UNKNOWN_FORMAT: ("error", "unknown-format", "convert it to JPEG or PNG"),
    problems.NO_IMAGE_SIZE: ("warning", "no-image-size", "write the image's width and height"),
    problems.MISSING_ANNOTATIONS: ("error", "missing-annotations", "put the file where it is looked for"),
    problems.UNREADABLE_ANNOTATIONS: ("error", "unreadable-annotations", "copy or export the file again"),
    problems.UNKNOWN_IMAGE: ("error", "unknown-image", "list the image, or delete the annotation"),
    problems.UNKNOWN_CATEGORY: ("error", "unknown-category", "list the class, or correct the annotation"),
    problems.SHIFTED_CATEGORIES: (
        "error",
        "shifted-categories",
        "count the classes from the same number in both places",
    ),
    problems.NO_AREA: ("error", "no-area", "correct the area, or leave the field out"),
    problems.NOT_FOUR_NUMBERS: ("error", "not-four-numbers", "write the four numbers, or delete the annotation"),
    problems.NO_SIZE: ("error", "box-without-size", "draw the box again, or delete the annotation"),
    problems.OUTSIDE: (
        "error",
        "box-outside",
        "is it the right image, and are the numbers pixels of it? correct or delete",
    ),
    problems.PARTLY_OUTSIDE: ("warning", "box-partly-outside", "correct the box, if it is not meant so"),
    problems.NOT_NUMBERS: ("error", "not-numbers", "write the line as: class cx cy w h"),
    problems.NOT_A_BOX: ("error", "not-a-box", "write the line as: class cx cy w h"),
    problems.NOT_NORMALISED: ("error", "not-normalised", "divide x and w by the image's width, y and h by its height"),
    problems.NOT_A_FLAG: ("warning", "not-a-flag", "write 0 or 1"),
}
