"""What the doctor found, as text and as a picture."""

import itertools

import numpy as np

from yolox_jax.data.images import ImageError, SizeError
from yolox_jax.tools.doctor.examination import Report
from yolox_jax.tools.doctor.findings import SEVERITIES, Finding
from yolox_jax.visualize import drawing, sheets

_LINES_PER_CODE = 10
_SHEET_CELLS = 24


def text(report: Report) -> str:
    """The report for a person: the splits, then the findings by kind, at most ten lines of each."""
    lines = []
    for name, split in report.splits.items():
        summary = split.summary()
        classes = ", ".join(f"{each} {count}" for each, count in itertools.islice(summary["boxes_of_class"].items(), 8))
        more = " …" if len(summary["boxes_of_class"]) > 8 else ""
        lines.append(f"{name}: {summary['images']} images, {summary['boxes']} boxes: {classes}{more}")

    by_kind: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in report.findings:
        by_kind.setdefault((finding.severity, finding.code, finding.split), []).append(finding)
    for (severity, code, split_name), of_kind in by_kind.items():
        count = f" ({len(of_kind)})" if len(of_kind) > 1 else ""
        lines += [
            "",
            f"{severity}: {code} in {split_name}{count}",
            *(f"  {each}" for each in of_kind[:_LINES_PER_CODE]),
        ]
        if len(of_kind) > _LINES_PER_CODE:
            lines.append(f"  and {len(of_kind) - _LINES_PER_CODE} more; --json=FILE lists all")
    counts = ", ".join(f"{report.count(severity)} {severity}s" for severity in SEVERITIES)
    return "\n".join([*lines, "", counts if report.findings else "nothing to report"])


def contact_sheet(report: Report) -> np.ndarray:
    """The first image of each kind of finding, then images spread over the splits, with the boxes as they are read."""
    chosen: dict[tuple[str, int], str] = {}
    shown_codes = set()
    for finding in report.findings:
        if finding.image is not None and (finding.split, finding.code) not in shown_codes:
            shown_codes.add((finding.split, finding.code))
            key = finding.split, finding.image
            chosen[key] = f"{chosen[key]}, {finding.code}" if key in chosen else finding.code
    per_split = -(-max(_SHEET_CELLS - len(chosen), 4) // max(len(report.splits), 1))
    for name, split in report.splits.items():
        for index in np.linspace(0, len(split.source) - 1, min(per_split, len(split.source))).astype(int).tolist():
            chosen.setdefault((name, index), "")

    pictures = []
    for (name, index), codes in itertools.islice(chosen.items(), _SHEET_CELLS):
        source = report.splits[name].source
        try:
            example = source[index]
        except (ImageError, SizeError):
            continue  # among the findings already, and there is nothing to show
        title = f"{name} {source.image_id(index)} {codes}"
        captions = [source.class_names[label] for label in example.labels]
        image, scale = sheets.fit(example.image, sheets.CELL - sheets.TITLE_HEIGHT)
        boxed = drawing.draw_boxes(image, example.boxes_xyxy * scale, example.labels.tolist(), captions)
        pictures.append(sheets.titled(boxed, title, sheets.CELL))
    if not pictures:
        raise ValueError("no image of the data set can be shown, so no sheet was written")
    return sheets.sheet(pictures)
