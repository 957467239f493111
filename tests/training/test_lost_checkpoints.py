"""A run whose checkpoints are gone does not begin again over its log; one that never saved does."""

import shutil

import pytest

from yolox_jax import storage
from yolox_jax.errors import UserError
from yolox_jax.training import bucket_claim, resume
from yolox_jax.training.mirror import Mirror
from yolox_jax.training.open_directory import opened
from yolox_jax.weights import checkpoint

_LOG = b'{"step": 0, "event": "batch"}\n{"step": 119, "loss": 1.0}\n'


@pytest.fixture
def run(tmp_path):
    """A run that was killed before its first save."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "ap.json").write_text("{}")
    (tmp_path / "run" / "metrics.jsonl").write_bytes(_LOG)
    return tmp_path / "run"


def _lose(run, how):
    folder = run / "checkpoints"
    if how == "its files":
        (folder / "ap.json").unlink()
    elif how == "its steps":
        (folder / "ap.json").write_text('{"100": 0.5}')
    elif how == "half":
        (folder / "ap.json").write_text('{"100')
    else:
        shutil.rmtree(folder)
    if how == "a file":
        folder.write_text("")
    elif how == "a link":
        folder.symlink_to("/nowhere")


_LOST = {
    "all": "checkpoints is missing; the run has a metrics.jsonl up to step 119",
    "a file": "checkpoints is a file, not a folder; the run has a metrics.jsonl up to step 119",
    "a link": "checkpoints is a link to /nowhere, which does not exist; the run has a metrics.jsonl up to step 119",
    "its files": "checkpoints has no checkpoint; the run has a metrics.jsonl up to",
    "its steps": "checkpoints has no checkpoint, though step 100 was evaluated; the run has a",
    "half": "checkpoints has no checkpoint, and .*ap.json: is not valid JSON .*; the run has a",
}


@pytest.mark.parametrize("how", _LOST)
def test_a_run_without_its_checkpoints_does_not_begin_again(run, how, capsys):
    _lose(run, how)
    before = {path.name for path in run.iterdir()}
    refused = pytest.raises(UserError, match=f"{_LOST[how]}.*: restore .* or start over with --config.resume=false")
    with refused, opened(run, resume=True):
        pytest.fail("the run began again")
    assert {path.name for path in run.iterdir()} - {".lock"} == before
    with opened(run, resume=False):
        assert (run / "earlier-1" / "metrics.jsonl").read_bytes() == _LOG
        assert not (run / "metrics.jsonl").exists()


@pytest.mark.parametrize("text", [b"\0\xff" * 50, b"no json\n"])
def test_a_log_that_is_damaged_counts_as_one(run, text):
    _lose(run, "all")
    (run / "metrics.jsonl").write_bytes(text)
    with pytest.raises(UserError, match="checkpoints is missing; the run has a metrics.jsonl without a step"):
        resume.check_checkpoints(run)


def test_a_run_that_was_killed_before_its_first_save_begins_again_and_says_so(run, capsys):
    resume.check_checkpoints(run)
    line = f"{run} ended before its first save, with a metrics.jsonl up to step 119: it begins again\n"
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("kept", [(), ("metrics.jsonl",), ("checkpoints",)])
def test_a_directory_without_a_log_or_with_an_empty_one_is_no_run(tmp_path, kept):
    if kept == ("metrics.jsonl",):
        (tmp_path / "metrics.jsonl").write_text("\n")
    elif kept:
        (tmp_path / "checkpoints").mkdir()
    resume.check_checkpoints(tmp_path)


def test_a_run_in_a_bucket_without_its_checkpoints_does_not_begin_again(gs_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(bucket_claim, "_LOOK_SECONDS", 0.05)
    address = storage.resolve(gs_bucket.address) / "run"
    storage.write_bytes(address / "metrics.jsonl", _LOG)
    refused = pytest.raises(UserError, match=f"{address}/checkpoints is missing; the run has a metrics.jsonl up to")
    with refused, opened(address, resume=True):
        pytest.fail("the run began again")
    storage.write_bytes(address / "checkpoints" / "ap.json", b"{}")
    resume.check_checkpoints(address)
    storage.write_bytes(address / "checkpoints" / "120" / "meta" / "metadata", b"{}")
    assert list(checkpoint.list_checkpoints(address))
    resume.check_checkpoints(address)


def test_a_log_reaches_the_bucket_after_the_file_without_which_it_has_lost_its_checkpoints(tmp_path, monkeypatch):
    written = []
    write = storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", lambda path, *rest: (written.append(path.name), write(path, *rest)))
    local, address = tmp_path / "local", tmp_path / "bucket"
    (local / "checkpoints").mkdir(parents=True)
    claim = bucket_claim.BucketClaim(address)
    copies = Mirror(local, address, claim)
    (local / "metrics.jsonl").write_bytes(_LOG)
    (local / "damaged").mkdir()
    (local / "damaged" / "metrics-1.jsonl").write_bytes(b"?")
    copies.request()
    copies.close()
    claim.release()
    assert [name for name in written if name != "claim.json"] == ["metrics-1.jsonl", "ap.json", "metrics.jsonl"]
