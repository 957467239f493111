"""Starting again keeps a former run's files, and only those."""

import errno
import fcntl

from yolox_jax.training.run_directory import claim, set_aside


def test_a_former_run_is_set_aside_under_a_free_name_and_what_is_no_runs_stays(tmp_path):
    assert set_aside(tmp_path) is None
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "earlier-1").mkdir()
    (tmp_path / "earlier-3").mkdir()  # the second was tidied away
    (tmp_path / "metrics.jsonl").write_text("{}")
    assert set_aside(tmp_path) == tmp_path / "earlier-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier-1", "earlier-2", "earlier-3", "notes.txt"]
    assert (tmp_path / "earlier-2" / "metrics.jsonl").read_text() == "{}"


def test_a_file_system_without_locks_can_be_used(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claim(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
