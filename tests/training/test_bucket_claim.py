"""One run at a time holds a directory in a bucket; a dead one's claim passes on, and the loser writes nothing more."""

import json

import pytest

from yolox_jax import storage
from yolox_jax.storage import Patience
from yolox_jax.training import bucket_claim
from yolox_jax.training.bucket_claim import BucketClaim, ClaimLost
from yolox_jax.training.run_directory import RunDirectoryError


@pytest.fixture(params=["local", "gs", "s3"])
def run(request, tmp_path, monkeypatch):
    monkeypatch.setattr(bucket_claim, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(bucket_claim, "_EXPIRES_SECONDS", 0.5)
    monkeypatch.setattr(bucket_claim, "_HEARTBEAT_SECONDS", 3600.0)
    if request.param == "local":
        return tmp_path / "run"
    return storage.resolve(request.getfixturevalue(f"{request.param}_bucket").address) / "run"


def _on_another_machine(monkeypatch):
    """From here on, this process looks like one of another machine."""
    monkeypatch.setattr(bucket_claim, "_machine", lambda: "another")


def test_a_second_run_is_refused_as_long_as_the_first_renews_its_claim(run, monkeypatch):
    monkeypatch.setattr(bucket_claim, "_HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(bucket_claim, "_EXPIRES_SECONDS", 60.0)
    first = BucketClaim(run)
    with pytest.raises(RunDirectoryError, match=r"another run is writing to .*run: process \d+ on .*: wait for it, or"):
        BucketClaim(run)
    first.check()
    first.release()
    BucketClaim(run).release()


def test_a_claim_that_is_released_is_free_at_once(run, monkeypatch, capsys):
    BucketClaim(run).release()
    _on_another_machine(monkeypatch)
    BucketClaim(run).release()
    assert "is claimed by" not in capsys.readouterr().out


def test_a_claim_that_is_not_renewed_expires_and_its_holder_notices(run, monkeypatch, capsys):
    first = BucketClaim(run)
    _on_another_machine(monkeypatch)
    second = BucketClaim(run)
    assert "is claimed by process" in capsys.readouterr().out
    with pytest.raises(ClaimLost, match="another run has taken .*run over.*: this run writes nothing more"):
        first.confirm(Patience(1))
    with pytest.raises(ClaimLost):
        first.check()
    before = storage.read_bytes(run / bucket_claim.NAME)
    first.release()  # leaves the claim of the second one as it is
    assert storage.read_bytes(run / bucket_claim.NAME) == before
    second.confirm(Patience(1))
    second.release()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"pid": "x"}', json.dumps({"machine": 1, "pid": 2}).encode()])
def test_a_claim_that_is_not_one_expires(tmp_path, monkeypatch, text):
    monkeypatch.setattr(bucket_claim, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(bucket_claim, "_EXPIRES_SECONDS", 0.1)
    (tmp_path / bucket_claim.NAME).write_bytes(text)
    BucketClaim(tmp_path).release()


def test_the_claim_of_a_process_that_died_on_this_machine_is_free_at_once(tmp_path, capsys):
    claim = BucketClaim(tmp_path)
    content = json.loads((tmp_path / bucket_claim.NAME).read_text())
    claim.release()
    (tmp_path / bucket_claim.NAME).write_text(json.dumps({**content, "started": "1"}))  # the number was given anew
    BucketClaim(tmp_path).release()
    assert "is claimed by" not in capsys.readouterr().out
