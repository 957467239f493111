"""Writes the HTML report of `eval.py --plots`: one file with the pictures inside, for one run or for two compared."""

import base64
import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from yolox_jax import storage
from yolox_jax.evaluation.ap_result import UNDEFINED, ApResult
from yolox_jax.evaluation.diagnosis import Diagnosis
from yolox_jax.evaluation.error_kinds import KINDS

_STYLE = """
:root { color-scheme: light dark; --text: #1a1d21; --back: #fff; --soft: #5b6570; --line: #e3e6ea; --row: #f4f6f8;
  --up: #1a7f37; --down: #c62828; --bar: #d9534f; }
@media (prefers-color-scheme: dark) { :root { --text: #e9ebee; --back: #121417; --soft: #9aa4af; --line: #2c333a;
  --row: #1b1f24; --up: #57c77a; --down: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: var(--text);
  background: var(--back); }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p, figcaption { color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; } th { color: var(--soft); font-weight: 600; }
tr:hover td { background: var(--row); }
td.bar { min-width: 6rem; }
td.bar i { display: block; height: .7rem; background: var(--bar); border-radius: 2px; }
.up { color: var(--up); } .down { color: var(--down); } .runs { display: flex; flex-wrap: wrap; gap: 1rem; }
.summary { display: flex; flex-wrap: wrap; gap: 0 2.5rem; } .summary > div { min-width: 0; }
figure { margin: 0; flex: 1 1 30rem; min-width: 0; } figure img { width: 100%; border-radius: 6px; }
""".strip()
_PICTURES = {
    "precision_recall.png": "Precision and recall",
    "f1.png": "F1 by score threshold",
    "confusion.png": "Confusion matrix",
    "worst_images.jpg": "Images with the most mistakes",
}
_UNITS = "AP, precision, recall, F1 and AP50 lost are in percent."
_SIZES = ("small", "medium", "large")  # COCO's: below 32x32, below 96x96, the rest, in pixels of the image
_UNDEFINED_APS = (UNDEFINED,) * (1 + len(_SIZES))  # of a class that a run does not know


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What the report shows of a run."""

    name: str
    ap: ApResult
    num_images: int
    diagnosis: Diagnosis
    pictures: Mapping[str, bytes]  # encoded, by file name


def write_report(path: Path, run: Evaluated, against: Evaluated | None = None) -> None:
    """Writes the report of a run, with the differences to another one if it is given.

    Raises:
      UserError: the file cannot be written.
    """
    runs = [run] if against is None else [run, against]
    title = " against ".join(each.name for each in runs)
    parts = [
        f"<main><h1>{html.escape(title)}</h1>",
        f"<p>{run.num_images} images, {len(run.diagnosis.class_names)} classes. {_UNITS}</p>",
        '<div class="summary"><div><h2>Average precision</h2>',
        _stats(runs),
        "</div><div><h2>Kinds of mistakes</h2>",
        _errors(runs),
        "</div></div>",
        "<h2>Classes</h2>",
        _classes(runs),
        *(_figures(runs, name, title) for name, title in _PICTURES.items()),
    ]
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{_STYLE}\n</style></head>\n<body>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )
    storage.write_bytes(path, page.encode("utf-8", "backslashreplace"))


def _stats(runs: Sequence[Evaluated]) -> str:
    header = ["", *(each.name for each in runs), *(["difference"] if len(runs) > 1 else [])]
    shared = [name for name in runs[0].ap.stats if all(name in each.ap.stats for each in runs)]
    rows = [[name, *_compared([each.ap.stats[name] for each in runs])] for name in shared]
    return _table(header, rows)


def _errors(runs: Sequence[Evaluated]) -> str:
    kinds_of = [run.diagnosis.errors() for run in runs]
    most = max([0.001, *(kind.lost_ap50 for kinds in kinds_of for kind in kinds)])  # one scale, to compare runs
    parts = []
    for run, kinds in zip(runs, kinds_of, strict=True):
        rows = [
            [
                kind.name,
                _Text(KINDS[kind.name]),
                str(kind.count),
                _percent(kind.lost_ap50),
                _Html(f'<td class="bar"><i style="width:{100 * max(kind.lost_ap50, 0) / most:.0f}%"></i></td>'),
            ]
            for kind in kinds
        ]
        named = f"{html.escape(run.name)}. " if len(runs) > 1 else ""
        threshold = f"The number is that above the best score threshold, {run.diagnosis.best.threshold:.3f}."
        parts.append(f"<p>{named}{threshold}</p>")
        parts.append(_table(["", _Text("what it is"), "number", "AP50 lost", ""], rows))
    return "\n".join(parts)


def _classes(runs: Sequence[Evaluated]) -> str:
    run, aps = runs[0], [_class_aps(each.ap) for each in runs]
    has_sizes = all(each.ap.class_ap_by_size for each in runs)
    sizes = [name for size in (_SIZES if has_sizes else ()) for name in _compared_header(f"AP {size}", runs)]
    header = ["class", "boxes", "AP50", *sizes, "precision", "recall", "F1", *_compared_header("AP", runs)]
    points = {row["class"]: row for row in run.diagnosis.table()[1:]}
    rows = []
    for each in run.ap.per_class:
        of_all, *by_size = zip(*(of_run.get(each.name, _UNDEFINED_APS) for of_run in aps), strict=True)
        row = [each.name, str(each.num_boxes), _percent(each.AP50)]
        row += [cell for values in (by_size if has_sizes else ()) for cell in _compared(values)]
        row += [_percent(points[each.name][key]) for key in ("precision", "recall", "F1")]
        rows.append(row + _compared(of_all))
    return _table(header, rows)


def _class_aps(ap: ApResult) -> dict[str, tuple[float, ...]]:
    """Returns AP of all, small, medium and large boxes by class; undefined by size if the metric has no sizes."""
    by_size = ap.class_ap_by_size or [_UNDEFINED_APS[1:]] * len(ap.per_class)
    return {each.name: (each.AP, *values) for each, values in zip(ap.per_class, by_size, strict=True)}


def _compared_header(name: str, runs: Sequence[Evaluated]) -> list[str]:
    """Returns the header of the cells of `_compared`."""
    return [name] if len(runs) == 1 else [name, f"{name} of {runs[1].name}", "difference"]


def _figures(runs: Sequence[Evaluated], name: str, title: str) -> str:
    figures = []
    for run in runs:
        if name in run.pictures:
            kind = "jpeg" if name.endswith(".jpg") else "png"
            data = base64.b64encode(run.pictures[name]).decode()
            caption = f"<figcaption>{html.escape(run.name)}</figcaption>" if len(runs) > 1 else ""
            figures.append(f'<figure><img alt="{title}" src="data:image/{kind};base64,{data}">{caption}</figure>')
    return f'<h2>{title}</h2>\n<div class="runs">{"".join(figures)}</div>' if figures else ""


class _Html(str):
    """A cell that is HTML already."""


class _Text(str):
    """A cell that is read, not compared: aligned to the left."""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(_cell(each, "th" if each else "td") for each in header) + "</tr>"]
    lines += ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _cell(content: str, tag: str = "td") -> str:
    if isinstance(content, _Html):
        return content
    attribute = ' class="text"' if isinstance(content, _Text) else ""
    return f"<{tag}{attribute}>{html.escape(content)}</{tag}>"


def _compared(values: Sequence[float]) -> list[str]:
    """Returns the cells of one value, or of two and how much the first is above the second."""
    cells = [_percent(value) for value in values]
    if len(values) == 1:
        return cells
    if UNDEFINED in values:
        return [*cells, "-"]
    difference = values[0] - values[1]
    direction = "up" if difference >= 0.0005 else "down" if difference <= -0.0005 else ""
    shown = f"{100 * difference:+.1f}" if direction else "0.0"
    return [*cells, _Html(f'<td class="{direction}">{shown}</td>')]


def _percent(value: float | None) -> str:
    return "-" if value is None or value == UNDEFINED else f"{100 * value:.1f}"
