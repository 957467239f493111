"""The pictures and the table of `eval.py --plots=DIR`."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolox_jax.evaluation.diagnosis import Diagnosis, diagnose
from yolox_jax.evaluation.precision_recall import Curve
from yolox_jax.evaluation.worst_images import worst_images
from yolox_jax.types import Source
from yolox_jax.visualize import drawing, sheets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMED = 10  # classes: more lines than these cannot be told apart by their colours
_MOST_NUMBERS = 15  # classes: beyond, the numbers of a confusion matrix run into each other
_DPI = 130


def prepare(folder: Path) -> None:
    """Makes the folder; a ValueError where matplotlib is not installed. To be called before work that takes long."""
    try:
        import matplotlib  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise ValueError("--plots needs matplotlib, which is not installed: pip install matplotlib") from error
    folder.mkdir(parents=True, exist_ok=True)


def write_plots(folder: Path, source: Source, detections: list[dict[str, Any]]) -> Diagnosis:
    """Writes everything about the detections (COCO form) on a source into a folder that exists.

    precision_recall.png, f1.png and confusion.png; per_class.csv; and worst_images.jpg where there are mistakes.
    """
    diagnosis = diagnose(source.ground_truth(), detections)
    for name, figure in (
        ("precision_recall.png", precision_recall(diagnosis)),
        ("f1.png", f1(diagnosis)),
        ("confusion.png", confusion(diagnosis)),
    ):
        figure.savefig(folder / name, dpi=_DPI)
    with (folder / "per_class.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = diagnosis.table()
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()})
    sheet = worst_images(diagnosis, source)
    if sheet is not None:
        sheets.write_picture(folder / "worst_images.jpg", sheet)
    return diagnosis


def precision_recall(diagnosis: Diagnosis) -> "Figure":
    """Each class and their mean, interpolated as for AP50."""
    recall = np.linspace(0, 1, 101)
    figure, axes = _axes("recall", "precision", "Precision and recall at IoU 0.5, over all scores")
    for label, of_class in enumerate(diagnosis.per_class):
        if of_class.num_boxes:
            name = f"{diagnosis.class_names[label]}, AP50 {of_class.ap():.3f}"
            axes.plot(recall, of_class.interpolated(), **_line(diagnosis, label, name))
    mean = diagnosis.mean_precision()
    axes.plot(recall, mean, color="black", linewidth=2, label=f"mean of the classes, AP50 {mean.mean():.3f}")
    axes.legend(loc="lower left")
    return figure


def f1(diagnosis: Diagnosis) -> "Figure":
    """F1 by the least score that is kept, and the best such score."""
    figure, axes = _axes("least score kept", "F1", "F1 against confidence, at IoU 0.5")
    for label, of_class in enumerate(diagnosis.per_class):
        if of_class.num_boxes and len(of_class.scores):
            own = of_class.best()
            name = f"{diagnosis.class_names[label]}, best {own.f1:.3f} at {own.threshold:.2f}"
            _plot_f1(axes, of_class, **_line(diagnosis, label, name))
    best = diagnosis.best
    _plot_f1(axes, diagnosis.together, color="black", linewidth=2, label="all boxes together")
    named = (
        f"best: F1 {best.f1:.3f} at {best.threshold:.3f}\n(precision {best.precision:.3f}, recall {best.recall:.3f})"
    )
    axes.axvline(best.threshold, color="black", linestyle="--", linewidth=1, label=named)
    axes.legend(loc="lower left" if best.threshold > 0.5 else "upper right")
    return figure


def _plot_f1(axes: "Axes", of_class: Curve, **line: Any) -> None:
    # From each score down to the next lower one the same detections are kept.
    axes.step(of_class.scores[::-1], of_class.f1[::-1], where="pre", **line)


def confusion(diagnosis: Diagnosis) -> "Figure":
    """Counts, coloured by their share of the row."""
    counts = diagnosis.confusion()
    num = len(counts)
    few = num <= _MOST_NUMBERS
    figure, axes = _axes("found as", "is", "", side=max(6.0, 0.16 * num))
    axes.set_title(f"Confusion at IoU 0.5, scores of at least {diagnosis.best.threshold:.3f}")
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlim=(-0.5, num - 0.5), ylim=(num - 0.5, -0.5))
    font = 9 if few else 6
    axes.set_xticks(range(num), [*diagnosis.class_names, "missed"], rotation=90, fontsize=font)
    axes.set_yticks(range(num), [*diagnosis.class_names, "background"], fontsize=font)
    axes.grid(visible=False)
    for row, column in np.argwhere(counts > 0).tolist() if few else ():
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    return figure


def _axes(x: str, y: str, title: str, side: float = 6.0) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure  # not pyplot: it would look for a screen

    figure = Figure(figsize=(1.25 * side, side), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, title=title, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color="0.9")
    return figure, axes


def _line(diagnosis: Diagnosis, label: int, name: str) -> dict[str, Any]:
    """How a class's curve is drawn: many classes are a grey background to what they give together."""
    if len(diagnosis.class_names) > _MOST_NAMED:
        return {"color": "0.8", "linewidth": 0.7}
    blue, green, red = drawing.class_colour(label)
    return {"color": (red / 255, green / 255, blue / 255), "linewidth": 1.2, "label": name}
