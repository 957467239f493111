"""Examines a whole data set in one pass. Faults at which training would stop become findings too."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from yolox_jax.data.sources import several, usable
from yolox_jax.data.sources.open import check_classes, open_unchecked
from yolox_jax.data.sources.problems import SourceError
from yolox_jax.errors import UserError
from yolox_jax.tools.doctor import annotations, box_checks, image_checks
from yolox_jax.tools.doctor.annotations import SplitAnnotations
from yolox_jax.tools.doctor.findings import SEVERITIES, Finding, Severity, from_problem
from yolox_jax.types import Source

Progress = Callable[[str, int, int], None]  # split, images read, all images of the split

# A systematic fault of a split causes many findings of these codes, which are left out: they only repeat it.
_CONSEQUENCES = {
    "many-crowds": {"class-with-few-boxes", "class-without-boxes", "few-usable", "images-without-boxes"},
    "shifted-categories": {"unknown-category", "class-without-boxes"},
    "wrong-box-format": {"box-partly-outside", "duplicate-box", "box-below-1-pixel", "boxes-below-8-pixels"},
    "normalised-boxes": {"box-below-1-pixel", "boxes-below-8-pixels"},
}


@dataclasses.dataclass(frozen=True)
class ExaminedSplit:
    """A split that could be opened, with its boxes and the digests of its images."""

    source: Source
    annotations: SplitAnnotations
    digests: image_checks.Digests

    def summary(self) -> dict[str, Any]:
        """The number of images, of boxes, and of boxes of each class; JSON-serializable."""
        of_label = collections.Counter(self.annotations.labels.tolist())
        of_class = {name: of_label[label] for label, name in enumerate(self.annotations.class_names)}
        return {"images": len(self.source), "boxes": len(self.annotations.labels), "boxes_of_class": of_class}


@dataclasses.dataclass(frozen=True)
class Report:
    """All findings, errors first, and the splits that could be opened."""

    findings: list[Finding]
    splits: dict[str, ExaminedSplit]

    def count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def with_findings(self, findings: Iterable[Finding]) -> "Report":
        """Returns a report with more findings."""
        ordered = sorted([*self.findings, *findings], key=lambda finding: SEVERITIES.index(finding.severity))  # stable
        return Report(ordered, self.splits)

    def as_dict(self) -> dict[str, Any]:
        """The summaries and findings; JSON-serializable."""
        records = [dataclasses.asdict(finding) for finding in self.findings]
        for record in records:
            del record["image"]
        return {"splits": {name: split.summary() for name, split in self.splits.items()}, "findings": records}


def examine(
    data: Mapping[str, Any],
    *,
    size_hw: tuple[int, int],
    max_boxes: int,
    num_classes: int | None = None,
    threads: int = 2,
    strict: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Reads train and val of a data set, and checks every image and box.

    Args:
      data: a config's data section, as `open_split` takes it.
      size_hw: the input size; it determines how small a box is for the network.
      max_boxes: config.data.max_boxes, the ground-truth slots per image.
      num_classes: config.num_classes, None if the data set decides.
      threads: number of threads that decode images.
      strict: warnings of image decoders are errors.
      progress: called with the number of images read so far.
    """
    findings: list[Finding] = []
    splits: dict[str, ExaminedSplit] = {}
    for name in ("train", "val"):
        try:
            source = open_unchecked(data, name)
            images = image_checks.read_all(source, threads, _progress_of_split(progress, name))
            annotated = annotations.from_ground_truth(name, source.ground_truth(), with_crowds=data["kind"] == "voc")
        except UserError as error:
            findings.append(Finding("error", "cannot-open", name, "", "", error.what, error.advice))
            if isinstance(error, SourceError):
                findings += [from_problem(problem, name) for problem in error.problems]
            continue
        splits[name] = ExaminedSplit(source, annotated, [image.digest for image in images])
        found = _training_would_stop(source, name)
        found += [from_problem(problem, name) for problem in source.problems]
        found += image_checks.unusable_images(annotated, images)
        found += image_checks.damaged_images(annotated, source, images, strict)
        found += image_checks.dark_images(annotated, images)
        found += box_checks.check_boxes(annotated, data["kind"], size_hw, max_boxes)
        found += image_checks.repeated_images(annotated, splits[name].digests)
        findings += _without_consequences(found)
    if len(splits) == 2:
        train, val = splits["train"], splits["val"]
        findings += image_checks.shared_images(train.annotations, train.digests, val.annotations, val.digests)
        findings += _class_names(num_classes, train.annotations.class_names, val.annotations.class_names)
    return Report([], splits).with_findings(findings)


def _training_would_stop(source: Source, split: str) -> list[Finding]:
    """Returns what `usable.check` refuses in each data set; if most annotations are unused, it adds a problem to it."""
    found = []
    for name, part in several.parts_of(source):
        try:
            usable.check(part, split)
        except UserError as error:
            record = f"data set {name}" if name else ""
            found.append(Finding("error", "training-would-stop", split, "", record, error.what, error.advice))
    return found


def _progress_of_split(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda num_done, num_all: progress(name, num_done, num_all)


def _without_consequences(findings: list[Finding]) -> list[Finding]:
    implied = set().union(*(_CONSEQUENCES.get(finding.code, set()) for finding in findings))
    return [finding for finding in findings if finding.code not in implied]


def _class_names(num_classes: int | None, train: tuple[str, ...], val: tuple[str, ...]) -> list[Finding]:
    try:
        check_classes(num_classes, train, val)
    except UserError as error:
        return [Finding("error", "class-names-differ", "train and val", "", "class names", error.what, error.advice)]
    return []
