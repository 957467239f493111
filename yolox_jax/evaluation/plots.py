"""Draws the plots, the table and the sheet of worst images of `eval.py --plots=DIR`."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from yolox_jax import storage
from yolox_jax.errors import UserError, writing
from yolox_jax.evaluation.diagnosis import Diagnosis
from yolox_jax.evaluation.precision_recall import Curve
from yolox_jax.evaluation.worst_images import worst_images
from yolox_jax.types import Source
from yolox_jax.visualize import drawing, sheets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMED = 10  # classes: with more, their colors are too similar
_MOST_NUMBERS = 15  # classes: with more, the numbers in the confusion matrix overlap
_DPI = 130
_AS_WRITTEN: dict[str, Any] = {"parse_math": False, "usetex": False}  # a $ in the name of a class is no formula


def prepare(folder: Path) -> None:
    """Creates the folder and checks for matplotlib. Call it before the evaluation, which may take long.

    Raises:
      UserError: matplotlib is not installed, or the folder cannot be created.
    """
    try:
        import matplotlib  # noqa: F401  # only checks that it is installed
    except ImportError as error:
        raise UserError("plots need matplotlib, which is not installed", "pip install matplotlib") from error
    with writing(folder, "choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)


def write_plots(folder: Path, diagnosis: Diagnosis, source: Source) -> dict[str, bytes]:
    """Writes the plots of the diagnosis of a source to a folder that exists. Returns the encoded pictures by file name.

    Files: precision_recall.png, f1.png, confusion.png, per_class.csv and, if there are mistakes, worst_images.jpg.

    Raises:
      UserError: a file cannot be written.
    """
    pictures = draw(diagnosis, source)
    for name, encoded in pictures.items():
        storage.write_bytes(folder / name, encoded)
    rows = diagnosis.table()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()})
    storage.write_bytes(folder / "per_class.csv", text.getvalue().encode())
    return pictures


def draw(diagnosis: Diagnosis, source: Source) -> dict[str, bytes]:
    """Returns the encoded pictures by file name: three plots and, if there are mistakes, the sheet of worst images."""
    pictures = {}
    for name, figure in (
        ("precision_recall.png", precision_recall(diagnosis)),
        ("f1.png", f1(diagnosis)),
        ("confusion.png", confusion(diagnosis)),
    ):
        encoded = io.BytesIO()
        figure.savefig(encoded, dpi=_DPI, format="png")
        pictures[name] = encoded.getvalue()
    sheet = worst_images(diagnosis, source)
    if sheet is not None:
        pictures["worst_images.jpg"] = sheets.encode(Path("worst_images.jpg"), sheet)
    return pictures


def precision_recall(diagnosis: Diagnosis) -> "Figure":
    """Plots precision over recall for each class, and the mean over classes, interpolated as for AP50."""
    recall = np.linspace(0, 1, 101)
    figure, axes = _axes("Recall", "Precision", "Precision and recall at IoU 0.5")
    for label, curve in enumerate(diagnosis.per_class):
        if curve.num_boxes:
            name = f"{diagnosis.class_names[label]}, AP50 {curve.ap():.3f}"
            axes.plot(recall, curve.interpolated(), **_line(diagnosis, label, name))
    mean = diagnosis.mean_precision()
    axes.plot(recall, mean, color="black", linewidth=2, gid=f"mean over classes, AP50 {mean.mean():.3f}")
    _legend(axes, "lower left")
    return figure


def f1(diagnosis: Diagnosis) -> "Figure":
    """Plots F1 over the score threshold and marks the best threshold."""
    figure, axes = _axes("Score threshold", "F1", "F1 by score threshold at IoU 0.5")
    for label, curve in enumerate(diagnosis.per_class):
        if curve.num_boxes and len(curve.scores):
            own = curve.best()
            name = f"{diagnosis.class_names[label]}, best {own.f1:.3f} at {own.threshold:.2f}"
            _plot_f1(axes, curve, **_line(diagnosis, label, name))
    best = diagnosis.best
    _plot_f1(axes, diagnosis.all_classes, color="black", linewidth=2, gid="all classes")
    label_best = (
        f"best: F1 {best.f1:.3f} at {best.threshold:.3f}\n(precision {best.precision:.3f}, recall {best.recall:.3f})"
    )
    axes.axvline(best.threshold, color="black", linestyle="--", linewidth=1, gid=label_best)
    _legend(axes, "lower left" if best.threshold > 0.5 else "upper right")
    return figure


def _plot_f1(axes: "Axes", curve: Curve, **line: Any) -> None:
    # Any threshold between two neighboring scores keeps the same detections, so F1 is constant there.
    axes.step(curve.scores[::-1], curve.f1[::-1], where="pre", **line)


def confusion(diagnosis: Diagnosis) -> "Figure":
    """Plots the confusion matrix: counts, colored by their share of the row."""
    counts = diagnosis.confusion()
    num = len(counts)
    few = num <= _MOST_NUMBERS
    title = f"Confusion matrix at IoU 0.5, score threshold {diagnosis.best.threshold:.3f}"
    figure, axes = _axes("Detected class", "True class", title, side=max(6.0, 0.16 * num))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlim=(-0.5, num - 0.5), ylim=(num - 0.5, -0.5))
    font = 9 if few else 6
    axes.set_xticks(range(num), [*diagnosis.class_names, "missed"], rotation=90, fontsize=font, **_AS_WRITTEN)
    axes.set_yticks(range(num), [*diagnosis.class_names, "background"], fontsize=font, **_AS_WRITTEN)
    axes.grid(visible=False)
    for row, column in np.argwhere(counts > 0).tolist() if few else ():
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    return figure


def _axes(x: str, y: str, title: str, side: float = 6.0) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure  # not pyplot, which would look for a display

    figure = Figure(figsize=(1.25 * side, side), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, title=title, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color="0.9")
    return figure, axes


def _legend(axes: "Axes", place: Literal["lower left", "upper right"]) -> None:
    """Adds a legend of the lines whose names are in their gid.

    As labels, names that begin with "_" would be left out; so the texts are set afterwards.
    """
    lines = [line for line in axes.get_lines() if line.get_gid() is not None]
    legend = axes.legend(lines, [str(number) for number in range(len(lines))], loc=place)
    for text, line in zip(legend.get_texts(), lines, strict=True):
        text.set(text=line.get_gid(), **_AS_WRITTEN)


def _line(diagnosis: Diagnosis, label: int, name: str) -> dict[str, Any]:
    """Returns the line style of a class: its color and its name, or gray without a name if there are many classes."""
    if len(diagnosis.class_names) > _MOST_NAMED:
        return {"color": "0.8", "linewidth": 0.7}
    blue, green, red = drawing.class_colour(label)
    return {"color": (red / 255, green / 255, blue / 255), "linewidth": 1.2, "gid": name}
