"""A short form of benchmarks/crash_test.py: a run whose process is killed equals one that is not."""

import pytest

from benchmarks import crash_test
from tests import programs
from tests.faulty_proxy import faulty_proxy
from tests.storage_servers import google_bucket, gs_server  # noqa: F401  (fixture)
from yolox_jax import storage

_SHORT = (
    *crash_test.SHORT,
    "--config.input_size=(64, 64)",
    "--config.epochs=2",
    "--config.data.shapes.num_val=8",
    "--config.checkpoint.every_steps=6",
)


@pytest.mark.slow
def test_a_run_that_is_killed_or_stopped_at_random_moments_equals_an_uninterrupted_one(
    tmp_path,
    monkeypatch,
    gs_server,  # noqa: F811
):
    """In a folder, and in a bucket behind a faulty network, where every local file is deleted after each kill."""
    monkeypatch.setattr("os.environ", programs.environment())
    whole = crash_test.Run(tmp_path / "whole", _SHORT, tmp_path)
    whole.start()
    arguments = {"seed": 0, "config": _SHORT, "whole": whole}
    rows = crash_test.crash_test(tmp_path, num_kills=1, num_stops=0, **arguments)
    with faulty_proxy(gs_server) as proxy:
        proxy.errors = proxy.resets = proxy.stalls = 0.05 / 3
        bucket = google_bucket(gs_server).through(proxy.endpoint)
        monkeypatch.setattr("os.environ", programs.environment() | bucket.environment)
        address = storage.resolve(bucket.address)
        rows += crash_test.crash_test(tmp_path, num_kills=1, num_stops=1, workdir=address, **arguments)
        assert proxy.num_faults > 0
    assert [name for name, *_ in rows] == ["SIGKILL", "SIGKILL", "SIGTERM"]
    for _, run, num_lost, differences in rows:
        assert num_lost == 0
        assert set(differences.values()) == {0}, differences
        assert {"killed", "stopped"} & {attempt.end for attempt in run.attempts}
