"""Training is timed at the largest batch that fits: a full memory ends the search, any other error the check."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import yolox_nano
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.tools.selfcheck import memory, prediction, training_speed
from yolox_jax.tools.selfcheck.report import Line
from yolox_jax.tools.selfcheck.setting import SIZES, Setting


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Runs the check with a device whose memory holds `capacity` images; returns its lines and the batches tried."""

    def run(capacity, limit_bytes=16e9, error="RESOURCE_EXHAUSTED: out of memory"):
        tried, lines = [], []

        def try_batch(training, batch_size, seconds):
            tried.append(batch_size)
            if batch_size > capacity:
                raise jax.errors.JaxRuntimeError(error)
            return SimpleNamespace(batch_size=batch_size, step=None, images_per_s=float(batch_size))

        monkeypatch.setattr(training_speed, "_prepare", lambda setting, name: None)
        monkeypatch.setattr(training_speed, "_try", try_batch)
        monkeypatch.setattr(training_speed, "_predict", lambda training, first, limit: 1.2 * capacity)
        monkeypatch.setattr(training_speed, "_speed", _speed)
        for step in ("_waiting", "_profile"):
            monkeypatch.setattr(training_speed, step, lambda *arguments: Line("other", "measured", ""))
        monkeypatch.setattr(prediction, "line", lambda *arguments: Line("other", "skipped", ""))
        monkeypatch.setattr(memory, "limit_bytes", lambda device: limit_bytes)
        training_speed.check(Setting(SIZES["full"], tmp_path, tmp_path), lines.append, name="s")
        return [(line.status, line.text) for line in lines if line.name == "training s"], tried

    return run


def _speed(training, name, trial, why):
    return Line(f"training {name}", "measured", f"{trial.batch_size}: {why}")


def test_the_search_goes_on_until_the_memory_is_full_and_keeps_what_it_has(check):
    lines, tried = check(capacity=40)
    until_then = "the most that was tried before the time was up"
    assert tried == [8, 32, 64]
    assert lines == [
        ("measured", f"8: {until_then}"),
        ("measured", f"32: {until_then}"),
        ("measured", "32: the largest power of two that fits"),
    ]


def test_a_device_that_does_not_report_its_memory_gets_the_first_batch_alone(check):
    lines, tried = check(capacity=40, limit_bytes=None)
    assert tried == [8] and lines[-1] == ("measured", "8: the most that is tried")


def test_a_memory_too_small_for_one_image_is_a_failed_line(check):
    lines, _ = check(capacity=0)
    assert lines == [("FAIL", "not even one image fits into the memory of this device")]


@pytest.mark.parametrize(
    ("peaks", "text"),
    [([5e9, 7e9], "peak 7.00 GB"), ([9e9, 9e9], "peak at most 9.00 GB"), ([None, None], "peak not reported")],
)
def test_the_peak_is_that_of_the_reported_trial_or_called_an_upper_bound(monkeypatch, peaks, text):
    """JAX cannot reset it: one that a batch that did not fit has reached stays."""
    reported = iter(peaks)
    monkeypatch.setattr(memory, "peak_bytes", lambda device: next(reported))
    monkeypatch.setattr(memory, "program_bytes", lambda step: 0)
    monkeypatch.setattr(training_speed.parallel, "compile_step", lambda *arguments: lambda *inputs: (inputs[0], {}))
    config = yolox_nano.get_config()
    training = SimpleNamespace(
        config=config,
        at=lambda batch_size: config,
        source=ShapesSource(num_images=4, seed=0),
        images={"images": np.zeros((8, 1))},
        start={},
        optimizer=None,
        cache_hits=SimpleNamespace(number=0),
    )
    monkeypatch.setattr(training_speed.from_config, "model", lambda *arguments: None)
    line = training_speed._speed(training, "nano", training_speed._try(training, 8, seconds=0.0), "")
    assert text in line.text and line.figures["peak_bytes"] == peaks[1]
    assert line.figures["is_own_peak"] is (peaks[0] != peaks[1])


def test_another_error_is_not_taken_for_a_full_memory(check):
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        check(capacity=4, error="INTERNAL: a bug")
