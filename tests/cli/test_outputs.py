"""Results go to a local path or to a bucket; one that cannot be written is an error before the work."""

import tempfile
from pathlib import Path

import pytest

from tests.faulty_proxy import faulty_proxy
from tests.storage_servers import enter
from yolox_jax import storage
from yolox_jax.cli import outputs
from yolox_jax.cli.outputs import output_file, output_folder
from yolox_jax.errors import UserError
from yolox_jax.storage import client


def test_a_local_file_is_written_where_it_belongs(tmp_path):
    with output_file(str(tmp_path / "a" / "b.json")) as file:
        assert file == tmp_path / "a" / "b.json" and file.parent.is_dir()
    with output_file(None) as file, output_folder(None) as folder:
        assert file is None and folder is None
    with output_folder(str(tmp_path / "plots")) as folder:
        assert folder == tmp_path / "plots"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    message = r"file/folder cannot be written \(Not a directory\): choose another path"
    with pytest.raises(UserError, match=message), output_file(str(tmp_path / "file" / "folder" / "results.json")):
        pytest.fail("the work began")


def test_a_folder_in_place_of_the_file_is_an_error_before_the_work(tmp_path):
    with pytest.raises(UserError, match="is a folder, and a file is to be written: "), output_file(str(tmp_path)):
        pytest.fail("the work began")


@pytest.fixture
def bucket(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return bucket


def test_results_are_uploaded_at_the_end(bucket, tmp_path):
    root = storage.resolve(bucket.address)
    with output_file(f"{bucket.address}/a/b.json") as file, output_folder(f"{bucket.address}/plots/") as folder:
        assert storage.list_files(root) == {}
        file.write_text("{}")
        (folder / "sub").mkdir()
        (folder / "sub" / "c.png").write_bytes(b"c")
    assert set(storage.list_files(root)) == {"a/b.json", "plots/sub/c.png"}
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_before_an_error_is_uploaded_too(bucket, tmp_path):
    with pytest.raises(KeyboardInterrupt), output_folder(f"{bucket.address}/out") as folder:
        (folder / "first").write_bytes(b"1")
        raise KeyboardInterrupt
    assert storage.read_bytes(storage.resolve(bucket.address) / "out/first") == b"1"


def test_a_bucket_that_refuses_is_one_message_before_the_work(bucket, monkeypatch):
    with faulty_proxy(bucket.endpoint) as proxy:
        enter(bucket.through(proxy.endpoint), monkeypatch)
        proxy.errors, proxy.status = 1.0, 403
        for output in (output_file, output_folder):
            with pytest.raises(UserError, match="refused"), output(f"{bucket.address}/a/b.json"):
                pytest.fail("the work began")


def test_results_that_cannot_be_uploaded_are_kept(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "_UPLOAD", storage.Patience(0))
    monkeypatch.setattr(client, "_FIRST_WAIT_S", 0.01)
    with faulty_proxy(bucket.endpoint) as proxy:
        enter(bucket.through(proxy.endpoint), monkeypatch)
        with pytest.raises(UserError, match="the results are in") as caught, output_file(f"{bucket.address}/b") as file:
            file.write_bytes(b"result")
            proxy.is_down = True
    assert (Path(str(caught.value).rpartition("the results are in ")[2]) / "b").read_bytes() == b"result"
