"""The files of eval.py --plots, for detections whose mistakes are known."""

import csv
import sys

import cv2
import numpy as np
import pytest

from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.errors import UserError
from yolox_jax.evaluation import plots, worst_images
from yolox_jax.evaluation.diagnosis import diagnose
from yolox_jax.visualize import sheets


@pytest.fixture(scope="module")
def source():
    return ShapesSource(num_images=6, seed=0)


@pytest.fixture(scope="module")
def detections(source):
    """Every box with a score of 0.8, except those of image 3, and two false positives of score 0.5 in image 5."""
    truth = source.ground_truth()
    found = [{**box, "score": 0.8} for box in truth["annotations"] if box["image_id"] != 3]
    return found + [{"image_id": 5, "category_id": 1, "bbox": [1, 1, 3 + i, 3], "score": 0.5} for i in range(2)]


def test_every_file_is_written_and_the_table_shows_the_known_mistakes(source, detections, tmp_path):
    plots.prepare(tmp_path / "a" / "b")
    diagnosis = diagnose(source.ground_truth(), detections)
    plots.write_plots(tmp_path / "a" / "b", diagnosis, source)
    for name in ("precision_recall.png", "f1.png", "confusion.png", "worst_images.jpg"):
        assert cv2.imread(str(tmp_path / "a" / "b" / name)).std() > 5, name
    with (tmp_path / "a" / "b" / "per_class.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == ["all", *source.class_names]
    num_boxes, num_missed = len(source.ground_truth()["annotations"]), len(source[2].labels)
    assert rows[0]["boxes"] == str(num_boxes) and rows[0]["precision"] == "1.0000"
    assert float(rows[0]["recall"]) == pytest.approx(1 - num_missed / num_boxes, abs=1e-4)
    assert diagnosis.best.threshold == 0.8


def test_the_plots_name_each_class_and_the_best_threshold(source, detections):
    diagnosis = diagnose(source.ground_truth(), detections)
    for figure, words in (
        (plots.precision_recall(diagnosis), ["mean over classes"]),
        (plots.f1(diagnosis), ["at 0.800", "best: F1"]),
    ):
        legend = " ".join(text.get_text() for text in figure.axes[0].get_legend().get_texts())
        assert all(word in legend for word in [*words, *source.class_names])
    axes = plots.confusion(diagnosis).axes[0]
    numbers = {(text.get_position()[::-1], text.get_text()) for text in axes.texts}
    assert numbers == {((r, c), str(n)) for (r, c), n in np.ndenumerate(diagnosis.confusion()) if n}
    assert axes.get_xticklabels()[-1].get_text() == "missed"


def test_names_of_classes_are_shown_as_they_are_written(source, detections, tmp_path):
    names = ["Ba$$in", "_x", r"$\frac{a}$", "50 % {\\b}"]
    truth = source.ground_truth()
    categories = [each | {"name": name} for each, name in zip(truth["categories"], names, strict=True)]
    truth = truth | {"categories": categories}
    diagnosis = diagnose(truth, detections)
    for draw in (plots.precision_recall, plots.f1, plots.confusion):
        figure = draw(diagnosis)
        figure.savefig(tmp_path / "plot.png", dpi=30)  # which raised an error at a formula
        legend = figure.axes[0].get_legend()
        shown = legend.get_texts() if legend else figure.axes[0].get_xticklabels()
        words = [text.get_text().partition(",")[0] for text in shown]
        assert words[: len(names)] == names, draw.__name__


def test_many_classes_are_plotted_without_names():
    categories = [{"id": i, "name": f"class {i}"} for i in range(20)]
    boxes = [{"id": i + 1, "image_id": 1, "category_id": i, "bbox": [9 * i, 0, 8, 8]} for i in range(20)]
    truth = {"images": [{"id": 1}], "categories": categories, "annotations": boxes}
    diagnosis = diagnose(truth, [{**box, "score": 0.5 + i / 50} for i, box in enumerate(boxes)])
    assert len(plots.precision_recall(diagnosis).axes[0].get_legend().get_texts()) == 1
    assert not plots.confusion(diagnosis).axes[0].texts


def test_plots_are_written_without_detections_and_without_ground_truth(source, tmp_path):
    plots.write_plots(tmp_path, diagnose(source.ground_truth(), []), source)
    truth = source.ground_truth() | {"annotations": []}
    plots.confusion(diagnose(truth, []))
    plots.f1(diagnose(truth, []))


def test_the_sheet_shows_missed_boxes_in_orange_and_false_detections_in_red_and_only_images_with_mistakes(
    source, detections
):
    diagnosis = diagnose(source.ground_truth(), [{**each, "score": 0.8} for each in detections])
    worst = diagnosis.worst(10)
    assert {image.image_id for image, _ in worst} == {3, 5}
    assert [mistakes.count for _, mistakes in worst] == sorted((m.count for _, m in worst), reverse=True)
    sheet = worst_images.worst_images(diagnosis, source)
    assert sheet.shape == (480 + sheets.TITLE_HEIGHT, 2 * 480, 3)
    for color in ((0, 130, 255), (40, 40, 220), (60, 180, 60)):
        assert (sheet == color).all(axis=2).any(), color


def test_without_mistakes_there_is_no_sheet(source):
    truth = source.ground_truth()
    perfect = diagnose(truth, [{**box, "score": 0.8} for box in truth["annotations"]])
    assert worst_images.worst_images(perfect, source) is None


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="plots need matplotlib, which is not installed: pip install matplotlib"):
        plots.prepare(tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/plots cannot be written"):
        plots.prepare(tmp_path / "file" / "plots")
