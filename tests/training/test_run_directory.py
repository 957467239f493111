"""A run directory belongs to one run at a time, and starting over in it moves the files of the earlier run aside."""

from pathlib import Path

import pytest

from yolox_jax.errors import UserError
from yolox_jax.training.run_directory import RunDirectoryError, check_there, claim, set_aside, write_atomically


def test_an_earlier_run_is_set_aside_under_a_free_name_and_other_files_stay(tmp_path):
    assert set_aside(tmp_path) is None
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "earlier-1").mkdir()
    (tmp_path / "earlier-3").mkdir()  # the second was deleted
    (tmp_path / "metrics.jsonl").write_text("{}")
    assert set_aside(tmp_path) == tmp_path / "earlier-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier-1", "earlier-2", "earlier-3", "notes.txt"]
    assert (tmp_path / "earlier-2" / "metrics.jsonl").read_text() == "{}"


def test_a_second_run_in_the_directory_is_refused(tmp_path):
    refused = pytest.raises(RunDirectoryError, match="another run is writing to .*run: wait for it, or choose another")
    with claim(tmp_path / "run"), refused, claim(tmp_path / "run"):
        pytest.fail("claimed twice")
    with claim(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_an_address_in_a_bucket_is_no_local_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gs:/bucket/run has one slash"), claim(Path("gs://bucket/run")):
        pytest.fail("claimed")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_or_file_that_cannot_be_written_is_an_error_with_advice(tmp_path):
    (tmp_path / "file").write_text("")
    refused = pytest.raises(RunDirectoryError, match=r"run cannot be written \(Not a directory\): choose another")
    with refused, claim(tmp_path / "file" / "run"):
        pytest.fail("a file was taken for a folder")
    with pytest.raises(RunDirectoryError, match=r"ap\.json cannot be written \(No such file.*\): free some space"):
        write_atomically(tmp_path / "absent" / "ap.json", "{}")


def test_a_file_is_replaced_and_no_temporary_file_is_left(tmp_path):
    write_atomically(tmp_path / "ap.json", "1")
    write_atomically(tmp_path / "ap.json", "2")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("ap.json", "2")]


def test_a_directory_that_is_deleted_or_moved_under_its_run_is_one_message(tmp_path):
    run = tmp_path / "run"
    for error in (UserError("a checkpoint could not be written", "free some space"), FileNotFoundError("pictures")):
        with pytest.raises(RunDirectoryError, match="run was deleted or moved while the run was writing"), claim(run):
            check_there(run)
            run.rename(tmp_path / f"moved by {type(error).__name__}")
            (run / "checkpoints").mkdir(parents=True)  # as orbax does
            raise error
    with pytest.raises(ZeroDivisionError), claim(run):
        (run / ".lock").unlink()
        1 / 0  # noqa: B018  (a bug keeps its traceback)
