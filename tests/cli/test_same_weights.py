"""Several processes read one checkpoint, though a run saves another one meanwhile."""

import jax
import pytest

from yolox_jax.cli.same_weights import agreed
from yolox_jax.training import hosts


@pytest.fixture
def two_processes(monkeypatch):
    """Stands for two processes, of which this one is the second; the content of process 0 is in the returned list."""
    first: list[bytes] = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "gather", lambda content: [first[0] if first else content, content])
    return first


def _save(run, step):
    for item in ("ema", "meta"):
        (run / "checkpoints" / str(step) / item).mkdir(parents=True)


def test_a_run_is_the_checkpoint_that_process_0_found(tmp_path, two_processes):
    for step in (2, 4):
        _save(tmp_path, step)
    assert agreed(str(tmp_path)) == agreed(f"{tmp_path}/last") == str(tmp_path / "checkpoints" / "4")
    assert agreed(str(tmp_path / "checkpoints" / "2")) == str(tmp_path / "checkpoints" / "2")
    two_processes.append(b"run/checkpoints/2")  # before 4 was there
    assert agreed(str(tmp_path)) == "run/checkpoints/2"


@pytest.mark.parametrize("weights", ["yolox_s", "gone/x.pth", "hf://me/cells", "https://example.org/x.pth"])
def test_other_weights_are_as_they_were_given(two_processes, weights):
    assert agreed(weights) == weights


def test_one_process_looks_for_nothing(tmp_path):
    _save(tmp_path, 2)
    assert agreed(str(tmp_path)) == str(tmp_path)
