"""A short form of benchmarks/crash_test.py: a run whose process is killed equals one that is not."""

import pytest

from benchmarks import crash_test
from tests import programs


@pytest.mark.slow
def test_a_run_that_is_killed_or_stopped_at_random_moments_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr("os.environ", programs.environment())
    short = ("--config.input_size=(64, 64)", "--config.epochs=2", "--config.data.shapes.num_val=8")
    short += ("--config.checkpoint.every_steps=6",)
    rows = crash_test.crash_test(tmp_path, num_kills=2, num_stops=1, seed=0, config=(*crash_test.SHORT, *short))
    assert [name for name, *_ in rows] == ["SIGKILL", "SIGTERM"]
    for _, run, num_lost, differences in rows:
        assert num_lost == 0
        assert set(differences.values()) == {0}, differences
        assert {"killed", "stopped"} & {attempt.end for attempt in run.attempts}
