"""The HTML report of eval.py --plots, of one run and of two."""

import dataclasses
import html.parser
import re

import pytest

from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.evaluation.coco_ap import compute_ap
from yolox_jax.evaluation.diagnosis import diagnose
from yolox_jax.evaluation.report import Evaluated, write_report


class _Tables(html.parser.HTMLParser):
    """Collects the text of all cells, row by row, and checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open, self.pictures = [], [], 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.pictures += tag == "img"
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def runs():
    """A run that finds all but image 3 and calls every box of image 4 by the first class; and a perfect one."""
    source = ShapesSource(num_images=6, seed=0)
    truth = source.ground_truth()
    truth["categories"][1]["name"] = "<b>&"
    perfect = [{**box, "score": 0.8} for box in truth["annotations"]]
    first = [
        {**box, "category_id": truth["categories"][0]["id"]} if box["image_id"] == 4 else box
        for box in perfect
        if box["image_id"] != 3
    ]
    return [
        Evaluated(name, compute_ap(truth, found), 6, diagnose(truth, found), {"f1.png": b"a picture"})
        for name, found in (("runs/<one>", first), ("runs/two", perfect))
    ]


def test_the_report_has_each_number_each_class_and_each_kind_of_mistakes(runs, tmp_path):
    write_report(tmp_path / "report.html", runs[0])
    text = (tmp_path / "report.html").read_text()
    page = _Tables(text)
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows["AP"] == [f"{100 * runs[0].ap.stats['AP']:.1f}"]
    assert rows["<b>&"][0] == str(runs[0].ap.per_class[1].num_boxes) and rows["<b>&"][-1] != "-"
    kinds = {kind.name: kind for kind in runs[0].diagnosis.errors()}
    assert rows["classification"][1] == str(kinds["classification"].count) != "0"
    assert float(rows["missed"][2]) == pytest.approx(100 * kinds["missed"].lost_ap50, abs=0.051)
    assert page.pictures == 1 and "<script" not in text and not re.search(r"(src|href)=.?https?:", text)


def test_of_two_runs_the_differences_are_shown(runs, tmp_path):
    write_report(tmp_path / "report.html", *runs)
    page = _Tables((tmp_path / "report.html").read_text())
    ap, perfect = (100 * run.ap.stats["AP"] for run in runs)
    assert ["AP", f"{ap:.1f}", f"{perfect:.1f}", f"{ap - perfect:+.1f}"] in page.rows and perfect == 100
    assert page.pictures == 2
    assert sum(row[0] == "missed" for row in page.rows) == 2


def test_a_class_has_its_ap_by_size_in_both_runs(runs, tmp_path):
    """The runs know the classes in different orders; the second lacks the last class of the first."""
    aps = [run.ap for run in runs]
    sizes = [tuple((10 * label + size) / 100 for size in (1, 2, 3)) for label in range(len(aps[0].per_class))]
    others = [tuple(2 * ap for ap in by_size) for by_size in sizes[-2::-1]]
    changed = [
        dataclasses.replace(runs[0], ap=dataclasses.replace(aps[0], class_ap_by_size=tuple(sizes))),
        dataclasses.replace(
            runs[1],
            ap=dataclasses.replace(aps[1], per_class=aps[1].per_class[-2::-1], class_ap_by_size=tuple(others)),
        ),
    ]
    write_report(tmp_path / "alone.html", changed[0])
    write_report(tmp_path / "report.html", *changed)
    (alone, both) = (_Tables((tmp_path / name).read_text()).rows for name in ("alone.html", "report.html"))
    for label, each in enumerate(aps[0].per_class):
        (row,) = (row for row in alone if row[0] == each.name)
        assert row[3:6] == [f"{100 * ap:.1f}" for ap in sizes[label]]
        (row,) = (row for row in both if row[0] == each.name)
        cells = [[f"{100 * ap:.1f}", f"{200 * ap:.1f}", f"{-100 * ap:+.1f}"] for ap in sizes[label]]
        if label == len(sizes) - 1:
            cells = [[own, "-", "-"] for own, *_ in cells]
        assert row[3:12] == [cell for of_size in cells for cell in of_size]
    (header,) = (row for row in both if row[0] == "class")
    assert header[3:6] == ["AP small", "AP small of runs/two", "difference"] and header[-3] == "AP"


def test_ap_by_size_of_all_classes_averages_to_that_of_the_metric(runs):
    for column, name in enumerate(("AP_small", "AP_medium", "AP_large")):
        of_classes = [values[column] for values in runs[0].ap.class_ap_by_size if values[column] >= 0]
        expected = sum(of_classes) / len(of_classes) if of_classes else -1
        assert runs[0].ap.stats[name] == pytest.approx(expected)
