"""Curves and bar of a run in a notebook."""

import math
import sys
import types
from xml.etree import ElementTree

import pytest

from yolox_jax.evaluation.ap_result import ApResult
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.run import notebook
from yolox_jax.run.callbacks import RunStart


def _polylines(svg):
    lines = ElementTree.fromstring(svg).iter("polyline")
    return [[tuple(map(float, point.split(","))) for point in line.get("points").split()] for line in lines]


def test_a_curve_is_linear_in_steps_and_values_with_its_highest_point_at_the_top():
    points = [(step, value) for step, value in zip(range(0, 40, 10), (4.0, 1.0, 3.0, 2.0), strict=True)]
    (line,) = _polylines(notebook.chart({"loss": points}, last_step=40))
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = line
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.1) == pytest.approx(x3 - x2, abs=0.1)
    assert y1 - y2 == pytest.approx(2 * (y3 - y2), abs=0.2) and min(y0, y1, y2, y3) == y0
    assert (y1 - y0) == pytest.approx(3 * (y3 - y2), abs=0.3)


@pytest.mark.parametrize("num_points", [0, 1, 2, 300, 301, 302, 303, 601, 602, 5000])
def test_a_long_curve_is_thinned_evenly_and_keeps_its_first_and_last_point(num_points):
    curve, points = notebook.Curve(), [(step + 1, 1.0 + step % 7) for step in range(num_points)]
    for point in points:
        curve.add(*point)
    stride = next(stride for stride in (1, 2, 4, 8, 16, 32) if len(points[::stride]) <= 300)
    last = points[-1:] if (num_points - 1) % stride else []
    assert list(curve.points) == [*points[::stride], *last]
    assert [len(line) for line in _polylines(notebook.chart({"loss": curve.points}, last_step=5000))] == (
        [len(curve.points)] if num_points > 1 else []
    )


def test_numbers_that_are_not_finite_are_left_out():
    points = [(1, 2.0), (2, "nan"), (3, math.nan), (4, math.inf), (5, 1.0)]  # metrics.jsonl has the text
    (line,) = _polylines(notebook.chart({"loss": points}, last_step=5))
    assert len(line) == 2
    assert _polylines(notebook.chart({"loss": [(1, math.nan)]}, last_step=5)) == []


def test_at_the_end_the_last_step_is_shown_however_short_ago_the_last_update_was(shown, monkeypatch):
    curves = notebook.LiveCurves()
    curves.close()  # of a run that ended before it began
    assert shown == []
    monkeypatch.setattr(notebook, "_SECONDS", 1e9)
    curves.on_start(RunStart("run", 0, 8, 4, ()))
    curves.on_log({"step": 0, "loss": 0.5, "images_per_second": 9.0, "data_wait": 0.0})
    assert len(shown) == 1
    curves.close()
    assert "step 1/8" in shown[-1] and len(shown) == 2


@pytest.fixture
def shown(monkeypatch):
    """The pages that a notebook shows, the last one at the end."""
    pages = []
    handle = types.SimpleNamespace(update=pages.append)
    fake = types.SimpleNamespace(HTML=str, display=lambda page, display_id: pages.append(page) or handle)
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr(notebook, "_SECONDS", -1.0)
    return pages


def test_an_error_of_the_display_is_one_warning_and_ends_no_run(shown, caplog):
    def fail(page):
        raise OSError("the connection is closed")

    curves = notebook.LiveCurves()
    curves.on_start(RunStart("run", 0, 8, 4, ()))
    curves._handle.update = fail
    for step in range(3):
        curves.on_log({"step": step, "loss": 0.5, "images_per_second": 9.0, "data_wait": 0.0})
    curves.on_evaluation(3, EvalResult(ApResult({"AP": 0.2, "AP50": 0.4}, ()), [], 3, None))
    curves.close()
    assert caplog.messages == ["curves disabled after an error: the connection is closed (metrics.jsonl is complete)"]
    assert len(shown) == 1


def test_a_loss_that_is_not_finite_is_shown_as_the_text_that_the_log_has(shown):
    curves = notebook.LiveCurves()
    curves.on_start(RunStart("run", 0, 8, 4, ()))
    curves.on_log({"step": 0, "loss": "nan", "loss_iou": "nan", "images_per_second": 9.0, "data_wait": 0.0})
    assert "loss_iou nan" in shown[-1] and _polylines(shown[-1]) == []


def test_a_resumed_run_shows_the_curves_from_its_beginning(shown):
    past = [{"step": step, "loss": 5.0 - step} for step in range(4)]
    past += [{"step": 3, "event": "evaluation", "AP": 0.1, "AP50": 0.3}, {"step": 3, "event": "batch", "path": "x"}]
    curves = notebook.LiveCurves()
    curves.on_start(RunStart("runs/<mine>", 4, 8, 4, tuple(past)))
    curves.on_log({"step": 4, "loss": 0.5, "loss_iou": 0.2, "images_per_second": 9.0, "data_wait": 0.25})
    curves.on_evaluation(7, EvalResult(ApResult({"AP": 0.2, "AP50": 0.4}, ()), [], 3, None))
    assert [[len(line) for line in _polylines(page)] for page in shown] == [[4], [5], [5, 2, 2]]
    assert 'max="8" value="4"' in shown[0] and 'max="8" value="5"' in shown[1]
    assert "runs/&lt;mine&gt;: step 5/8, epoch 2/2, 9.0 images/s, 25.0% waiting for data" in shown[1]
