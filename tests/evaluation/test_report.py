"""The HTML report of eval.py --plots, of one run and of two."""

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


def test_ap_by_size_of_all_classes_averages_to_that_of_the_metric(runs):
    for column, name in enumerate(("AP_small", "AP_medium", "AP_large")):
        of_classes = [values[column] for values in runs[0].ap.class_ap_by_size if values[column] >= 0]
        expected = sum(of_classes) / len(of_classes) if of_classes else -1
        assert runs[0].ap.stats[name] == pytest.approx(expected)
