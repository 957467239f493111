"""Whenever a run dies, what the bucket holds is a run that a new machine resumes without a gap."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.faulty_proxy import faulty_proxy
from tests.training import toy
from yolox_jax import storage
from yolox_jax.storage import Patience, StorageError
from yolox_jax.training import bucket_claim, mirror
from yolox_jax.training.bucket_claim import BucketClaim, ClaimLost
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.mirror import Mirror
from yolox_jax.weights import bucket_copy, checkpoint, manifest


class _Run:
    """A run of one process that writes a line a step, saves every second step and evaluates every fourth."""

    def __init__(self, local, address):
        self.local, self.address = local, address
        local.mkdir(parents=True, exist_ok=True)
        self.claim = BucketClaim(address)
        mirror.fill(local, address)
        self.mirror = Mirror(local, address, self.claim)
        self.checkpoints = Checkpoints(local, address=address)
        restored = self.checkpoints.restore_latest(toy.create_state(), lambda meta: None)
        self.state, self.step = (toy.create_state(), 0) if restored is None else (restored[0], restored[1].step)
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] < self.step))

    @property
    def log(self):
        return self.local / "metrics.jsonl"

    def train(self, num_steps):
        for _ in range(num_steps):
            self._note({"step": self.step})
            self.step += 1
            self.state = self.state.replace(step=self.state.step + 1, ema=jax.tree.map(lambda x: x + 1, self.state.ema))
            if self.step % 2 == 0:
                self.checkpoints.save(self.state, toy.meta(self.step))
                self.mirror.request(saving=self.step)
            if self.step % 4 == 0:
                self._note({"step": self.step - 1, "event": "evaluation"})
                self.checkpoints.record_ap(self.step, 1 / self.step)
                self.mirror.request()

    def _note(self, record):
        with self.log.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def end(self):
        self.checkpoints.close()
        self.mirror.close()
        self.claim.release()


def _check(address):
    """Checks that the run in the bucket can be resumed. Returns the step."""
    files = storage.list_files(address)
    steps = bucket_copy.steps(files)
    if not steps:
        return 0
    records = [json.loads(line) for line in storage.read_bytes(address / "metrics.jsonl").splitlines()]
    logged = [record["step"] for record in records if "event" not in record]
    evaluated = {record["step"] for record in records if "event" in record}
    assert logged[: max(steps)] == list(range(max(steps))) and len(logged) == len(set(logged))
    aps = checkpoint.read_aps(address / "checkpoints")
    assert {step - 1 for step in aps} <= evaluated
    return max(steps)


@pytest.fixture
def looks_again(monkeypatch):
    monkeypatch.setattr(bucket_claim, "_LOOK_SECONDS", 0.05)


def test_after_every_single_write_the_bucket_holds_a_run_that_can_be_resumed(tmp_path, monkeypatch):
    address = tmp_path / "bucket"
    found, lock = [], threading.RLock()

    def watched(function):
        def call(*arguments):
            with lock:  # one write at a time: each is a moment at which the machine may vanish
                result = function(*arguments)
                found.append(_check(address))
            return result

        return call

    for module, name in ((bucket_copy, "copy_out"), (storage, "write_bytes"), (storage, "remove")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    run = _Run(tmp_path / "local", address)
    monkeypatch.setattr("os.fsync", lambda file: None)  # no power fails here
    run.train(7)  # faster than the copies: a checkpoint may vanish before or while it is copied
    run.end()
    assert found == sorted(found) and {2, 4, 6} >= set(found) - {0} and found[-1] == 6
    assert sorted(bucket_copy.steps(storage.list_files(address))) == sorted(run.checkpoints.steps()) == [4, 6]


def test_a_run_whose_disk_is_gone_resumes_from_the_bucket_bit_for_bit(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path / "home"))
    address = storage.resolve(bucket.address) / "run"
    for _ in range(2):
        run = _Run(tmp_path / "local", address)
        run.train(3)
        run.end()
        shutil.rmtree(tmp_path / "local")
    whole = _Run(tmp_path / "other", tmp_path / "bucket")
    whole.train(4)
    whole.end()
    resumed = _Run(tmp_path / "local", address)
    resumed.end()
    assert resumed.step == 4  # step 3 was not saved: the second start resumed from 2
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)
    assert [json.loads(line)["step"] for line in resumed.log.read_text().splitlines()] == [0, 1, 2, 3, 3]
    assert checkpoint.find(address).name == "4" == checkpoint.find(address / "best").name
    variables = checkpoint.read_variables(checkpoint.find(address / "checkpoints" / "2"), whole.state.ema)
    assert jax.tree.structure(variables) == jax.tree.structure(whole.state.ema)
    listed = checkpoint.list_checkpoints(address, verify=True)
    assert [(each.step, each.ap) for each in listed] == [(2, None), (4, 0.25)]
    assert {each.condition for each in listed} == {"verified"}


def test_a_checkpoint_that_is_being_removed_on_the_disk_stays_in_the_bucket(tmp_path, monkeypatch):
    address = tmp_path / "bucket"
    run = _Run(tmp_path / "local", address)
    run.train(2)
    run.checkpoints.close()
    _wait_until(lambda: 2 in run.mirror._saved)
    folder = tmp_path / "local" / "checkpoints" / "2"
    (folder / manifest.NAME).unlink()  # the first file that goes
    scandir = os.scandir

    def scan(path):
        if folder in Path(path).parents:
            raise FileNotFoundError(path)  # gone since the folder above it was listed
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    run.mirror.close()
    run.claim.release()
    assert manifest.verify(address / "checkpoints" / "2")


def test_a_checkpoint_that_vanished_before_it_was_copied_removes_none_from_the_bucket(tmp_path, monkeypatch):
    address = tmp_path / "bucket"
    run = _Run(tmp_path / "local", address)
    run.train(2)
    run.end()
    monkeypatch.setattr(run.mirror, "_complete_steps", lambda: [4])  # the disk had this one alone, and it is gone
    assert not run.mirror._copy_all()
    assert _check(address) == 2


def test_a_checkpoint_that_is_being_removed_is_not_copied_in_part(tmp_path):
    address = tmp_path / "bucket"
    run = _Run(tmp_path / "local", address)
    run.train(2)
    run.checkpoints.close()
    run.mirror.close()
    whole, part = (tmp_path / "local" / "checkpoints" / name for name in "24")
    shutil.copytree(whole, part)
    shutil.rmtree(part / "ema")
    threading.Timer(0.5, shutil.rmtree, [part]).start()
    assert not run.mirror._copy_all()
    run.claim.release()
    assert not (address / "checkpoints" / "4").exists() and manifest.verify(address / "checkpoints" / "2")


def test_an_evaluation_after_the_step_of_a_resume_does_not_count_as_done(tmp_path, monkeypatch):
    address = tmp_path / "bucket"
    run = _Run(tmp_path / "local", address)
    run.train(4)
    run.end()
    storage.write_bytes(address / "checkpoints" / "ap.json", b'{"4": 0.25, "6": 0.5}')  # step 6 was lost
    run = _Run(tmp_path / "local", address)
    written = []
    write = storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", lambda path, *rest: (written.append(path.name), write(path, *rest)))
    run.train(2)
    run.end()
    assert written[:2] == ["ap.json", "metrics.jsonl"]  # at no moment a log that lacks an evaluation of ap.json
    assert _check(address) == 6 and checkpoint.read_aps(address / "checkpoints") == {4: 0.25}


def test_what_is_half_written_counts_as_absent_and_what_is_damaged_is_saved_again(tmp_path, caplog):
    address = tmp_path / "bucket"
    run = _Run(tmp_path / "local", address)
    run.train(4)
    run.end()
    shutil.copytree(address / "checkpoints" / "4", address / "checkpoints" / "6")
    shutil.rmtree(address / "checkpoints" / "6" / "meta")
    (address / "checkpoints" / "4" / "meta" / "metadata").write_text("{")
    resumed = _Run(tmp_path / "new", address)
    assert resumed.step == 2 and f"{address / 'checkpoints' / '4'} cannot be read" in caplog.text
    resumed.train(2)
    resumed.end()
    assert sorted(bucket_copy.steps(storage.list_files(address))) == [2, 4]
    assert not any(path.is_file() for path in (address / "checkpoints" / "6").rglob("*"))
    assert manifest.verify(address / "checkpoints" / "4")
    assert (address / "checkpoints" / "4.unreadable-1" / "meta" / "metadata").read_text() == "{"


def test_a_checkpoint_that_is_set_aside_is_set_aside_in_the_bucket_too(tmp_path):
    address = tmp_path / "bucket"
    run = _Run(tmp_path / "local", address)
    run.train(4)
    run.end()
    resumed = _Run(tmp_path / "new", address)
    resumed.checkpoints.restore_latest(toy.create_state(), lambda meta: None, newest=2)
    resumed.checkpoints.set_aside_after(2)
    resumed.mirror.request()
    resumed.end()
    assert checkpoint.locate(address / "last").name == "2" and checkpoint.read_aps(address / "checkpoints") == {}
    assert manifest.verify(address / "checkpoints" / "4.ahead-1", items=("meta",))


def test_only_files_that_differ_are_copied_to_a_folder_that_is_there(tmp_path, monkeypatch):
    run = _Run(tmp_path / "local", tmp_path / "bucket")
    run.train(4)
    run.end()
    damaged = next(path for path in (tmp_path / "local" / "checkpoints" / "4" / "ema").rglob("*") if path.is_file())
    damaged.write_bytes(b"")
    (tmp_path / "local" / "checkpoints" / "8").mkdir()
    copied = []
    copy = bucket_copy.copy_file
    monkeypatch.setattr(
        bucket_copy, "copy_file", lambda source, *rest: (copied.append(source.name), copy(source, *rest))
    )
    assert mirror.fill(tmp_path / "local", tmp_path / "bucket") == {2, 4}
    notes = {"_CHECKPOINT_METADATA", "commit_success.txt", "metrics.jsonl", "ap.json"}
    assert set(copied) - notes == {damaged.name}
    assert not (tmp_path / "local" / "checkpoints" / "8").exists()
    assert manifest.verify(tmp_path / "local" / "checkpoints" / "4")


@pytest.mark.slow
def test_a_run_trains_while_its_bucket_is_away_and_catches_up(tmp_path, gs_bucket, monkeypatch, caplog):
    monkeypatch.setattr(mirror, "_OUTAGE_SECONDS", 0.2)
    monkeypatch.setattr("yolox_jax.storage.client._LONGEST_WAIT_S", 0.1)
    with faulty_proxy(gs_bucket.endpoint) as proxy:
        for name, value in gs_bucket.through(proxy.endpoint).environment.items():
            monkeypatch.setenv(name, value)
        address = storage.resolve(gs_bucket.address) / "run"
        run = _Run(tmp_path / "local", address)
        run.train(2)
        _wait_until(lambda: checkpoint.find(address) is not None)
        proxy.is_down = True
        run.train(6)  # does not wait: saves 4, 6 and 8
        assert run.checkpoints.steps()[-1] >= 6
        _wait_until(lambda: "the run continues, and what it saves waits in" in caplog.text)
        proxy.is_down = False
        run.end()
        assert "answers again: everything is copied" in caplog.text and caplog.text.count("the run continues") == 1
        assert sorted(bucket_copy.steps(storage.list_files(address))) == [4, 6, 8]
        assert _check(address) == 8


@pytest.mark.parametrize("passes", [True, False])
def test_a_run_ends_with_a_message_if_its_bucket_keeps_refusing(tmp_path, gs_bucket, monkeypatch, passes):
    monkeypatch.setattr(mirror, "REFUSED_SECONDS", 60.0 if passes else 0.3)
    monkeypatch.setattr("yolox_jax.storage.client._LONGEST_WAIT_S", 0.1)
    with faulty_proxy(gs_bucket.endpoint) as proxy:
        for name, value in gs_bucket.through(proxy.endpoint).environment.items():
            monkeypatch.setenv(name, value)
        run = _Run(tmp_path / "local", storage.resolve(gs_bucket.address) / "run")
        proxy.errors, proxy.status = 1.0, 403
        run.train(2)
        if passes:
            while proxy.num_faults < 3:
                time.sleep(0.05)
            proxy.errors = 0.0
            run.end()
        else:
            with pytest.raises(StorageError, match="is refused .status 403."):
                run.end()


def test_an_interrupted_run_does_not_wait_for_a_bucket_that_is_away(tmp_path, gs_bucket, monkeypatch):
    monkeypatch.setattr("yolox_jax.storage.client._LONGEST_WAIT_S", 0.1)
    with faulty_proxy(gs_bucket.endpoint) as proxy:
        for name, value in gs_bucket.through(proxy.endpoint).environment.items():
            monkeypatch.setenv(name, value)
        run = _Run(tmp_path / "local", storage.resolve(gs_bucket.address) / "run")
        proxy.is_down = True
        run.train(2)
        run.mirror.abandon()
        run.mirror._thread.join(60)
        assert not run.mirror._thread.is_alive()
        proxy.is_down = False
        run.checkpoints.close()
        run.claim.release()


@pytest.mark.parametrize("knows", [True, False])
def test_a_run_that_lost_its_claim_writes_nothing_more(knows, tmp_path, monkeypatch, looks_again):
    address = tmp_path / "bucket"
    monkeypatch.setattr(bucket_claim, "_EXPIRES_SECONDS", 0.1)
    run = _Run(tmp_path / "local", address)
    run.train(2)
    _wait_until(lambda: (address / "checkpoints" / "2" / manifest.NAME).exists() and not run.mirror._asked.is_set())
    monkeypatch.setattr(bucket_claim, "_machine", lambda: "another")
    other = BucketClaim(address)  # this run was stopped for a while, and comes back
    if knows:
        with pytest.raises(ClaimLost):
            run.claim.confirm(Patience(1))
    else:  # its next heartbeat is later than its next write
        monkeypatch.setattr(bucket_claim, "_TRUSTED_SECONDS", 0.0)
    before = storage.list_files(address)
    run.train(2)
    with pytest.raises(ClaimLost):
        run.end()
    with pytest.raises(ClaimLost):
        run.mirror.check()
    assert storage.list_files(address) == before
    other.release()


def _wait_until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.02)
