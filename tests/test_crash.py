"""A short form of benchmarks/crash_test.py: a run whose process is killed equals one that is not."""

import random
import signal

import pytest

from benchmarks import crash_test
from tests import programs
from tests.faulty_proxy import faulty_proxy
from tests.storage_servers import google_bucket
from yolox_jax import storage


class _Stopped:
    """A run that saves step 9 when it is stopped, after it has logged 12 and reported to have saved `saved_at`."""

    def __init__(self, saved_at):
        self.attempts, self._saved_at = [], saved_at

    def saved_steps(self):
        return [9] if self.attempts else []

    def start(self, number=None, *_):
        end, saved_at = ("finished", None) if number is None else ("stopped", self._saved_at)
        self.attempts.append(crash_test.Attempt(end, "training", 0, 12, saved_at, 1.0))
        return self.attempts[-1]


@pytest.mark.parametrize(("saved_at", "num_lost"), [(9, 3), (12, 3), (8, 4)])
def test_steps_that_a_stop_logged_and_did_not_save_are_lost(saved_at, num_lost):
    assert crash_test.interrupt(_Stopped(saved_at), signal.SIGTERM, 1, random.Random(0), 40) == num_lost


_SHORT = (
    f"--config={programs.ROOT / 'tests' / 'small.py'}",
    *crash_test.SHORT,
    "--config.input_size=(64, 64)",
    "--config.epochs=2",
    "--config.data.shapes.num_val=8",
    "--config.checkpoint.every_steps=8",
)


@pytest.mark.slow
def test_a_run_in_a_bucket_that_is_killed_or_stopped_equals_an_uninterrupted_one_in_a_folder(
    tmp_path,
    monkeypatch,
    gs_server,
):
    """Every local file is deleted after each signal, and of twenty requests to the bucket one goes wrong."""
    with faulty_proxy(gs_server) as proxy:
        proxy.errors = proxy.resets = proxy.stalls = 0.05 / 3
        bucket = google_bucket(gs_server).through(proxy.endpoint)
        monkeypatch.setattr("os.environ", programs.environment() | bucket.environment)
        address = storage.resolve(bucket.address)
        rows = crash_test.crash_test(tmp_path, num_kills=1, num_stops=1, seed=0, config=_SHORT, workdir=address)
        assert proxy.num_faults > 0
    assert [name for name, *_ in rows] == ["SIGKILL", "SIGTERM"]
    for _, run, num_lost, differences in rows:
        assert num_lost == 0
        assert set(differences.values()) == {0}, differences
        assert {"killed", "stopped"} & {attempt.end for attempt in run.attempts}
