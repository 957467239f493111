"""A short form of benchmarks/crash_test.py: a run whose process is killed equals one that is not."""

import pytest

from benchmarks import crash_test
from tests import programs
from tests.faulty_proxy import faulty_proxy
from tests.storage_servers import google_bucket
from yolox_jax import storage

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
