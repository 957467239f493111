"""Every fault of a data set in one go: where opening it for training would stop, this notes it and goes on."""

import collections
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from yolox_jax.data.sources.open import check_classes, open_split
from yolox_jax.errors import UserError
from yolox_jax.tools.doctor import annotated, box_checks, image_checks
from yolox_jax.tools.doctor.annotated import Annotated
from yolox_jax.tools.doctor.findings import SEVERITIES, Finding, Severity, of_problem
from yolox_jax.types import Source

Progress = Callable[[str, int, int], None]  # split, images read, images in all

# What one systematic fault brings with it in its split, and would only repeat it.
_CONSEQUENCES = {
    "shifted-categories": {"unknown-category", "class-without-boxes"},
    "wrong-box-format": {"box-partly-outside", "duplicate-box", "box-below-1-pixel", "boxes-below-8-pixels"},
    "normalised-boxes": {"box-below-1-pixel", "boxes-below-8-pixels"},
}


@dataclasses.dataclass(frozen=True)
class Checked:
    """A split that could be opened."""

    source: Source
    boxes: Annotated
    digests: image_checks.Digests

    def summary(self) -> dict[str, Any]:
        """For a json: how many images, boxes and boxes of each class."""
        of_label = collections.Counter(self.boxes.labels.tolist())
        of_class = {name: of_label[label] for label, name in enumerate(self.boxes.class_names)}
        return {"images": len(self.source), "boxes": len(self.boxes.labels), "boxes_of_class": of_class}


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found, errors first, and the splits that it was found in."""

    findings: list[Finding]
    splits: dict[str, Checked]

    def count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For a json."""
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
    progress: Progress | None = None,
) -> Report:
    """Reads train and val of `data`, a config's data section, and checks every image and box.

    Args:
      data: as `open_split` takes it.
      size_hw: the input size, which says how small a box will be.
      max_boxes: slots for the boxes of an image.
      num_classes: of the config, where it says.
      threads: that decode images.
      progress: told how far the reading is.
    """
    found: list[Finding] = []
    splits: dict[str, Checked] = {}
    for name in ("train", "val"):
        try:
            source = open_split(data, name)
            digests, faults = image_checks.read_all(source, threads, _of_split(progress, name))
            boxes = annotated.from_ground_truth(name, source.ground_truth(), with_crowds=data["kind"] == "voc")
        except UserError as error:
            found.append(Finding("error", "cannot-open", name, "", "", error.what, error.advice))
            continue
        splits[name] = Checked(source, boxes, digests)
        of_split = [of_problem(problem, name) for problem in source.problems]
        of_split += image_checks.unusable_images(boxes, faults)
        of_split += box_checks.check_boxes(boxes, data["kind"], size_hw, max_boxes)
        of_split += image_checks.repeated_images(boxes, digests)
        found += _without_consequences(of_split)
    if len(splits) == 2:
        train, val = splits["train"], splits["val"]
        found += image_checks.shared_images(train.boxes, train.digests, val.boxes, val.digests)
        found += _class_names(num_classes, train.boxes.class_names, val.boxes.class_names)
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))  # stable
    return Report(found, splits)


def _of_split(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda num_done, num_all: progress(name, num_done, num_all)


def _without_consequences(of_split: list[Finding]) -> list[Finding]:
    implied = set().union(*(_CONSEQUENCES.get(finding.code, set()) for finding in of_split))
    return [finding for finding in of_split if finding.code not in implied]


def _class_names(num_classes: int | None, train: tuple[str, ...], val: tuple[str, ...]) -> list[Finding]:
    try:
        check_classes(num_classes, train, val)
    except UserError as error:
        return [Finding("error", "class-names-differ", "train and val", "", "class names", error.what, error.advice)]
    return []
