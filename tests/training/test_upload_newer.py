"""What was saved on this machine while the bucket was away is copied there at the next start, if no other run wrote."""

import shutil

import jax
import numpy as np
import pytest

from tests.training.test_mirror import _check, _Run
from yolox_jax.training import bucket_claim, mirror
from yolox_jax.training.bucket_claim import BucketClaim
from yolox_jax.weights import checkpoint, manifest


@pytest.fixture
def died(tmp_path, monkeypatch):
    """A run that has copied step 2, and was killed after it had saved step 4 on its disk."""
    monkeypatch.setattr(bucket_claim, "_LOOK_SECONDS", 0.05)
    run = _Run(tmp_path / "local", tmp_path / "bucket")
    mirror.note_filled(run.local, run.claim)
    run.train(2)
    run.checkpoints.close()
    run.mirror.close()
    run.train(2)
    run.checkpoints.close()
    run.claim.release()
    assert _check(run.address) == 2 and run.checkpoints.steps() == [2, 4]
    return run


def _start_again(run):
    claim = BucketClaim(run.address)
    mirror.upload_newer(run.local, run.address, claim)
    mirror.fill(run.local, run.address)
    claim.release()
    return sorted(checkpoint.complete_steps(run.local / "checkpoints"))


def test_a_newer_save_of_the_last_run_is_copied(died, capsys):
    assert _start_again(died) == [2, 4] and _check(died.address) == 4
    assert "lacks step 4, which was saved on this machine" in capsys.readouterr().out
    assert checkpoint.read_aps(died.address / "checkpoints") == {4: 0.25}
    found = checkpoint.read_variables(checkpoint.find(died.address), died.state.ema)
    jax.tree.map(np.testing.assert_array_equal, found, died.state.ema)


def test_nothing_is_copied_after_another_run_held_the_claim(died, caplog):
    BucketClaim(died.address).release()
    assert _start_again(died) == [2] and _check(died.address) == 2
    assert f"step 4, which is in {died.local}/kept-1: not copied, since another run" in caplog.text
    assert manifest.verify(died.local / "kept-1" / "4")


def test_nothing_is_copied_to_a_bucket_that_the_user_has_emptied(died, caplog):
    shutil.rmtree(died.address)
    assert _start_again(died) == [] and "not copied, since another run may" in caplog.text


def test_a_save_that_is_damaged_is_not_copied(died):
    files = [path for path in (died.local / "checkpoints" / "4" / "ema").rglob("*") if path.is_file()]
    max(files, key=lambda path: path.stat().st_size).write_bytes(b"")
    assert _start_again(died) == [2] and _check(died.address) == 2
