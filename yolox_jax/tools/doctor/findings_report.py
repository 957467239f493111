"""The doctor's report as text for the terminal, and as a sheet of annotated images."""

import itertools

import numpy as np

from yolox_jax.data.images import ImageError, SizeError
from yolox_jax.errors import UserError
from yolox_jax.tools.doctor.examination import Report
from yolox_jax.tools.doctor.findings import SEVERITIES, Finding
from yolox_jax.visualize import drawing, sheets

_LINES_PER_KIND = 10
_CLASSES_SHOWN = 8
_SHEET_CELLS = 24
_MIN_EXAMPLES = 4  # candidates for the last free cells: some are on the sheet already


def text(report: Report) -> str:
    """Formats the report for the terminal: a line per split, then findings with their advice, at most ten of a kind."""
    lines = []
    for name, split in report.splits.items():
        summary = split.summary()
        of_class = summary["boxes_of_class"]
        classes = ", ".join(f"{each} {count}" for each, count in itertools.islice(of_class.items(), _CLASSES_SHOWN))
        more = " …" if len(of_class) > _CLASSES_SHOWN else ""
        lines.append(f"{name}: {summary['images']} images, {summary['boxes']} boxes: {classes}{more}")

    alike: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in report.findings:
        alike.setdefault((finding.severity, finding.code, finding.split, finding.advice), []).append(finding)
    for (severity, code, split_name, advice), of_kind in alike.items():
        count = f" ({len(of_kind)})" if len(of_kind) > 1 else ""
        lines += [
            "",
            f"{severity}: {code} in {split_name}{count}",
            *(f"  {each}" for each in of_kind[:_LINES_PER_KIND]),
        ]
        if len(of_kind) > _LINES_PER_KIND:
            lines.append(f"  and {len(of_kind) - _LINES_PER_KIND} more; --json=FILE lists all")
        lines.append(f"  advice: {advice}")
    counts = ", ".join(_counted(report.count(severity), severity) for severity in SEVERITIES)
    return "\n".join([*lines, "", counts if report.findings else "no faults found"]).lstrip("\n")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def contact_sheet(report: Report) -> np.ndarray:
    """Draws the first image of each code, then images spread over the splits, with the boxes as they are read.

    Raises:
      UserError: no image of the data set can be read.
    """
    pictures = []
    for (name, index), codes in itertools.islice(_chosen_images(report).items(), _SHEET_CELLS):
        source = report.splits[name].source
        try:
            example = source[index]
        except (ImageError, SizeError):
            continue  # already among the findings, and there is nothing to show
        title = f"{name} {source.image_id(index)} {', '.join(codes)}"
        captions = [source.class_names[label] for label in example.labels]
        image, scale = sheets.fit(example.image, sheets.CELL - sheets.TITLE_HEIGHT)
        boxed = drawing.draw_boxes(image, example.boxes_xyxy * scale, example.labels.tolist(), captions)
        pictures.append(sheets.titled(boxed, title, sheets.CELL))
    if not pictures:
        raise UserError(
            "no sheet was written, since no image of the data set can be read", "fix the errors above first"
        )
    return sheets.sheet(pictures)


def _chosen_images(report: Report) -> dict[tuple[str, int], list[str]]:
    """Returns the images of the sheet in order, as (split, index), with the codes of the findings that each shows."""
    chosen: dict[tuple[str, int], list[str]] = {}
    shown = set()
    for finding in report.findings:
        if finding.image is not None and (finding.split, finding.code) not in shown:
            shown.add((finding.split, finding.code))
            chosen.setdefault((finding.split, finding.image), []).append(finding.code)
    per_split = -(-max(_SHEET_CELLS - len(chosen), _MIN_EXAMPLES) // max(len(report.splits), 1))
    for name, split in report.splits.items():
        for index in np.linspace(0, len(split.source) - 1, min(per_split, len(split.source))).astype(int).tolist():
            chosen.setdefault((name, index), [])
    return chosen
