"""The progress of a run in a notebook: a bar, and curves of loss and AP, drawn anew as the run goes on."""

import dataclasses
import datetime
import html
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.run.callbacks import RunStart

logger = logging.getLogger("yolox_jax.training")

Points = Sequence[tuple[float, float]]

_SECONDS = 0.5  # between two updates
_MOST_POINTS = 300  # of a curve; even
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 420, 170, 46, 24, 20
_COLORS = ("#3b7dd8", "#d9822b")  # visible on white and on black
_NUMBERS = ("loss_iou", "loss_obj", "loss_cls", "loss_l1", "num_fg_per_gt")


class Curve:
    """A curve of a run of any length: every k-th point of it, and the last one."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, float]] = []
        self._last = (0.0, 0.0)
        self._count, self._stride = 0, 1  # all points so far; k

    def add(self, x: float, y: float) -> None:
        """Adds the next point."""
        self._last = x, y
        if self._count % self._stride == 0:
            self._kept.append(self._last)
        if len(self._kept) > _MOST_POINTS:  # the last one of this odd number stays
            self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._count += 1

    @property
    def points(self) -> Points:
        """The points to draw."""
        return [*self._kept, self._last] if (self._count - 1) % self._stride else self._kept


class LiveCurves:
    """A callback that shows a run in the output of a notebook's cell. Its first error ends that, not the run."""

    def __init__(self) -> None:
        self._loss = Curve()
        self._aps = {"AP": Curve(), "AP50": Curve()}
        self._last: Mapping[str, Any] = {}
        self._updated = 0.0
        self._handle: Any = None
        self._has_failed = False

    def on_start(self, start: RunStart) -> None:
        for record in start.records:
            self._add(record)
        self._start = dataclasses.replace(start, records=())
        self._step, self._since = start.first_step, time.perf_counter()
        self._show()

    def on_log(self, record: Mapping[str, Any]) -> None:
        self._last, self._step = record, record["step"] + 1
        self._add(record)
        if time.perf_counter() - self._updated > _SECONDS:
            self._show()

    def on_evaluation(self, step: int, result: EvalResult) -> None:
        self._add({"step": step, "event": "evaluation", **result.ap.stats})
        self._show()

    def close(self) -> None:
        """Shows the last step, also of a run that was stopped."""
        if self._handle is not None:
            self._show()

    def _add(self, record: Mapping[str, Any]) -> None:
        """Adds a line of metrics.jsonl to the curves."""
        if "loss" in record:
            self._loss.add(record["step"] + 1, record["loss"])
        elif record.get("event") == "evaluation":
            for name, curve in self._aps.items():
                curve.add(record["step"] + 1, record[name])

    def _show(self) -> None:
        if self._has_failed:
            return
        try:
            from IPython.display import HTML, display

            page = HTML(self._page())
            if self._handle is None:
                self._handle = display(page, display_id=True)
            else:
                self._handle.update(page)
        except Exception as error:  # noqa: BLE001  (the display has errors of its own)
            logger.warning("curves disabled after an error: %s (metrics.jsonl is complete)", error)
            self._has_failed = True
        self._updated = time.perf_counter()

    def _page(self) -> str:
        start, done = self._start, self._step
        epoch = min(done // start.steps_per_epoch + 1, start.total_steps // start.steps_per_epoch)
        text = f"step {done}/{start.total_steps}, epoch {epoch}/{start.total_steps // start.steps_per_epoch}"
        if self._last:
            here = max(1, done - start.first_step)
            seconds = (time.perf_counter() - self._since) / here * (start.total_steps - done)
            terms = "  ".join(f"{name} {_rounded(self._last[name])}" for name in _NUMBERS if name in self._last)
            text += f", {self._last['images_per_second']:.1f} images/s, {self._last['data_wait']:.1%} waiting for data"
            text += f", about {datetime.timedelta(seconds=int(seconds))} left\n{terms}"
        aps = {name: curve.points for name, curve in self._aps.items()}
        charts = chart({"loss": self._loss.points}, start.total_steps) + chart(aps, start.total_steps)
        return (
            '<div style="font: 13px sans-serif; max-width: 860px">'
            f'<progress style="width: 100%" max="{start.total_steps}" value="{done}"></progress>'
            f'<pre style="margin: 2px 0">{html.escape(start.address)}: {text}</pre>{charts}</div>'
        )


def chart(curves: Mapping[str, Points], last_step: int) -> str:
    """Draws curves over the steps as an SVG. Points that are not finite numbers are left out."""
    finite = {name: [point for point in points if _is_finite(point[1])] for name, points in curves.items()}
    values = [y for points in finite.values() for _, y in points]
    low, high = (min(0.0, *values), max(values)) if values else (0.0, 1.0)
    height = (high - low) or 1.0

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _LEFT + point[0] / last_step * (_WIDTH - _LEFT - 8)
        return x, _HEIGHT - _BOTTOM - (point[1] - low) / height * (_HEIGHT - _TOP - _BOTTOM)

    (left, bottom), (right, top) = place((0, low)), place((last_step, low + height))
    parts = [
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="11" fill="currentColor">',
        f'<path d="M{left:.1f} {top:.1f}V{bottom:.1f}H{right:.1f}" stroke="currentColor" fill="none" opacity="0.4"/>',
        f'<text x="{left - 4:.1f}" y="{bottom:.1f}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{left - 4:.1f}" y="{top + 8:.1f}" text-anchor="end">{low + height:.3g}</text>',
        f'<text x="{right:.1f}" y="{_HEIGHT - 5}" text-anchor="end">step {last_step}</text>',
    ]
    for number, (name, points) in enumerate(finite.items()):
        color, x = _COLORS[number], left + 8 + 130 * number
        shown = f"{name} {points[-1][1]:.4g}" if points else f"{name}: none yet"
        parts.append(f'<text x="{x:.1f}" y="13" fill="{color}" font-weight="bold">{shown}</text>')
        places = [f"{x:.1f},{y:.1f}" for x, y in map(place, points)]
        if len(places) == 1:
            center = 'cx="{}" cy="{}"'.format(*places[0].split(","))
            parts.append(f'<circle {center} r="3" fill="{color}"/>')
        elif places:
            parts.append(f'<polyline points="{" ".join(places)}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    return "".join([*parts, "</svg>"])


def _rounded(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)  # metrics.jsonl has texts for other numbers
