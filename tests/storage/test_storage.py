"""Files in buckets: what storage.py does is checked against real servers on 127.0.0.1, for both kinds of store."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faulty_proxy import faulty_proxy
from tests.material import ROOT
from tests.storage_servers import enter
from yolox_jax import storage
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.storage import StorageError, client, transfers


@pytest.fixture(params=["local", "memory", "gs", "s3"])
def folder(request, tmp_path):
    """An empty folder of each kind; fsspec's memory:// stands for any other address."""
    if request.param in ("local", "memory"):
        return storage.resolve(str(tmp_path / "folder") if request.param == "local" else f"memory:/{tmp_path}/folder")
    return storage.resolve(request.getfixturevalue(f"{request.param}_bucket").address) / "folder"


def test_what_is_written_is_read(folder):
    storage.write_bytes(folder / "a/b.bin", b"one")
    assert storage.read_bytes(folder / "a/b.bin") == b"one"
    storage.write_bytes(folder / "a/b.bin", b"two and more")
    assert storage.read_bytes(folder / "a/b.bin") == b"two and more"
    assert storage.entry(folder / "a/b.bin").size == 12


def test_only_the_first_creates(folder):
    assert storage.create(folder / "claim", b"first")
    assert storage.create(folder / "claim", b"second") is None
    assert storage.read_bytes(folder / "claim") == b"first"


def test_only_an_unchanged_file_is_replaced(folder):
    old = storage.create(folder / "claim", b"first")
    new = storage.replace(folder / "claim", b"second", old)
    assert new and new != old
    assert storage.replace(folder / "claim", b"third", old) is None
    assert storage.read_versioned(folder / "claim") == (b"second", new)
    assert storage.replace(folder / "absent", b"x", old) is None


def test_files_are_listed_moved_and_removed(folder):
    assert storage.list_files(folder) == {} and storage.list_names(folder) == []
    for name in ("a/1", "a/2", "b", "c/d/e"):
        storage.write_bytes(folder / name, name.encode())
    storage.write_bytes(folder.parent / "folder2", b"beside")
    assert {name: entry.size for name, entry in storage.list_files(folder).items()} == {
        "a/1": 3,
        "a/2": 3,
        "b": 1,
        "c/d/e": 5,
    }
    assert storage.list_names(folder) == ["a", "b", "c"] and storage.list_names(folder / "b") == []
    assert storage.is_folder(folder / "a") and not storage.is_folder(folder / "b")
    assert storage.exists(folder / "a") and storage.exists(folder / "b") and not storage.exists(folder / "x")
    storage.move(folder / "a", folder / "old/a")
    storage.move(folder / "b", folder / "old/b")
    assert set(storage.list_files(folder)) == {"old/a/1", "old/a/2", "old/b", "c/d/e"}
    storage.remove(folder / "c/d/e")
    storage.remove(folder / "c/d/e")
    storage.remove_tree(folder / "old")
    storage.remove_tree(folder / "old")
    assert storage.list_files(folder) == {}


_CONTENT = bytes(range(256)) * 400  # 102,400 bytes


def test_uploads_and_downloads_are_whole(bucket, tmp_path):
    file, path = tmp_path / "a.bin", storage.resolve(bucket.address) / "x" / "a.bin"
    file.write_bytes(_CONTENT)
    assert storage.upload(file, path).size == len(_CONTENT)
    progress = []
    storage.download(path, tmp_path / "new" / "b.bin", progress.append)
    assert (tmp_path / "new" / "b.bin").read_bytes() == _CONTENT and sum(progress) == len(_CONTENT)
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["b.bin"]
    with pytest.raises(NotFoundError, match="there is no"):
        storage.download(path.with_name("c.bin"), tmp_path / "c.bin")


def test_a_download_resumes_if_the_file_is_the_same(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "_RANGE_BYTES", 30_000)
    path, file = storage.resolve(bucket.address) / "a.bin", tmp_path / "a.bin"

    def stop(num_bytes):
        if file.with_name("a.bin.part").stat().st_size >= 30_000:
            raise KeyboardInterrupt

    for content in (_CONTENT, _CONTENT[::-1]):  # the second time the file has changed since the interruption
        storage.write_bytes(path, _CONTENT)
        with pytest.raises(KeyboardInterrupt):
            storage.download(path, file, stop)
        assert not file.exists()
        if content is not _CONTENT:
            storage.write_bytes(path, content)
        progress = []
        storage.download(path, file, progress.append)
        assert file.read_bytes() == content
        assert progress[0] == (30_000 if content is _CONTENT else 0) and sum(progress) == len(content)
        file.unlink()


def test_a_file_that_changes_while_it_is_downloaded_is_fetched_again(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "_RANGE_BYTES", 30_000)
    path, changes = storage.resolve(bucket.address) / "a.bin", [_CONTENT[::-1], b"short"]
    storage.write_bytes(path, _CONTENT)

    def change(num_bytes):
        if num_bytes == 30_000 and changes:
            storage.write_bytes(path, changes.pop(0))

    storage.download(path, tmp_path / "a.bin", change)
    assert (tmp_path / "a.bin").read_bytes() == b"short"


def test_a_store_that_sends_more_than_the_file_has_is_an_error(tmp_path, monkeypatch):
    path = storage.resolve("gs://bucket/file")
    monkeypatch.setattr(transfers, "entry", lambda path, patience: storage.Entry(5, "1"))
    monkeypatch.setattr(transfers, "send", lambda *args, **kwargs: b"unpacked")  # gzip that the store unpacks
    with pytest.raises(StorageError, match=r"gs://bucket/file has 5 bytes, but 8 came: store it without a content enc"):
        storage.download(path, tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("fault", ["errors", "resets", "stalls"])
def test_faults_of_the_network_pass(bucket, fault, tmp_path, monkeypatch):
    with faulty_proxy(bucket.endpoint) as proxy:
        enter(bucket.through(proxy.endpoint), monkeypatch)
        setattr(proxy, fault, 0.15 if fault == "stalls" else 0.3)
        proxy.stall_s = 0.5
        monkeypatch.setattr(client, "_FIRST_WAIT_S", 0.01)
        monkeypatch.setattr(client, "_SILENT_S", 0.2)
        monkeypatch.setattr(transfers, "_RANGE_BYTES", 30_000)
        folder = storage.resolve(bucket.address) / "folder"
        for i in range(4):
            storage.write_bytes(folder / str(i), _CONTENT)
            assert storage.read_bytes(folder / str(i)) == _CONTENT
        version = storage.create(folder / "claim", b"mine")
        for i in range(5):
            version = storage.replace(folder / "claim", f"beat {i}".encode(), version)
            assert version  # also if the answer to the request that wrote it was lost
        storage.download(folder / "3", tmp_path / "3")
        assert (tmp_path / "3").read_bytes() == _CONTENT
        storage.move(folder, folder.with_name("moved"))
        assert len(storage.list_files(folder.with_name("moved"))) == 5 and storage.list_files(folder) == {}
        assert proxy.num_faults > 0


def test_an_outage_is_waited_for_as_long_as_the_caller_says(bucket, monkeypatch):
    monkeypatch.setattr(client, "_FIRST_WAIT_S", 0.02)
    path, reasons = storage.resolve(bucket.address) / "x", []
    with faulty_proxy(bucket.endpoint) as proxy:
        enter(bucket.through(proxy.endpoint), monkeypatch)
        proxy.is_down = True
        with pytest.raises(storage.UnreachableError, match="cannot be reached"):
            storage.write_bytes(path, b"x", storage.Patience(0.2))

        def end_outage(reason):
            reasons.append(reason)
            proxy.is_down = len(reasons) < 3

        storage.write_bytes(path, b"x", storage.Patience(60, end_outage))
        assert len(reasons) == 3 and str(path) in reasons[0]


@pytest.mark.parametrize(("status", "words"), [(403, "refused"), (401, "credentials"), (400, "refused")])
def test_a_refusal_is_one_message_at_once_without_credentials(bucket, status, words, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)  # as a user's own program may
    with faulty_proxy(bucket.endpoint) as proxy:
        enter(bucket.through(proxy.endpoint), monkeypatch)
        proxy.errors, proxy.status = 1.0, status
        path = storage.resolve(bucket.address) / "x"
        for call in (storage.read_bytes, storage.list_files, storage.check_writable, storage.exists, storage.remove):
            with pytest.raises(storage.StorageError, match=words) as caught:
                call(path)
            assert bucket.address in str(caught.value) and not isinstance(caught.value, storage.UnreachableError)
            shown = f"{caught.value}{caplog.text}{''.join(capfd.readouterr())}"
            assert not re.search("testing-secret|signature", shown, re.IGNORECASE)
        assert proxy.num_requests <= 10


@pytest.mark.parametrize("status", [408, 409, 429, 500])
def test_an_answer_that_may_be_another_next_time_is_waited_for(bucket, status, monkeypatch):
    monkeypatch.setattr(client, "_FIRST_WAIT_S", 0.01)
    with faulty_proxy(bucket.endpoint) as proxy:
        enter(bucket.through(proxy.endpoint), monkeypatch)
        proxy.errors, proxy.status = 1.0, status
        reasons = []

        def give_up(reason):
            reasons.append(reason)
            if len(reasons) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            storage.create(storage.resolve(bucket.address) / "x", b"x", storage.Patience(60, give_up))
        assert f"status {status}" in reasons[1] and proxy.num_requests == 2


def test_a_bucket_that_does_not_exist_is_one_message(bucket):
    path = storage.resolve(bucket.address + "-absent") / "x"
    for call in (storage.check_writable, storage.read_bytes):
        with pytest.raises(UserError, match="there is no"):
            call(path)
    assert not storage.exists(path) and storage.list_files(path) == {}


def test_addresses_are_told_from_local_paths():
    for text in ("gs://bucket/x", "s3://bucket", "memory://x", "abfs://container@account.host/x"):
        assert storage.is_remote(text) and str(storage.resolve(text)) == text
    for text in ("runs/x", "/runs/x", "C:/runs", "C:\\runs", "https://host/x.pth", "yolox_s"):
        assert not storage.is_remote(text) and storage.resolve(text) == storage.local_path(text) == Path(text)
    with pytest.raises(
        UserError, match="^gs://b/a.jpg is an address, and this takes files of this machine: copy it here"
    ):
        storage.local_path("gs://b/a.jpg")
    path = storage.resolve("gcs://bucket/runs//1/")
    assert str(path) == "gs://bucket/runs/1" and path.name == "1" and str(path.parent.parent.parent) == "gs://bucket"
    assert str(path / "a/b" / Path("c.txt")) == "gs://bucket/runs/1/a/b/c.txt"
    assert str((path / "c.txt").with_suffix(".json")) == "gs://bucket/runs/1/c.json"
    with pytest.raises(TypeError):
        Path(path)
    for text in ("gs:/bucket/x", "gs://", "s3://key:secret@bucket/x", "gs://secret@bucket", "ftp://me:secret@host/x"):
        with pytest.raises(UserError) as caught:
            storage.resolve(text)
        assert "secret" not in str(caught.value)


def test_credentials_are_not_in_messages():
    text = (
        "GET https://h/x?X-Amz-Signature=abc&y failed: Authorization: Bearer abc, aws_secret_access_key=abc //me:abc@h"
    )
    assert "abc" not in client.without_credentials(text)


@pytest.mark.parametrize(("scheme", "package", "extra"), [("gs", "gcsfs", "gcs"), ("s3", "s3fs", "s3")])
def test_a_missing_package_is_named_with_its_extra(scheme, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(client, "_connect", client._connect.__wrapped__)
    message = rf"{scheme}:// needs a package .*: pip install {package}, .* checkout .*'\.\[{extra}\]'"
    with pytest.raises(UserError, match=message):
        storage.read_bytes(storage.resolve(f"{scheme}://bucket/x"))


def test_local_paths_import_no_library_for_buckets():
    program = "import sys; from yolox_jax import storage; storage.list_files(storage.resolve('yolox_jax'));"
    program += "print([name for name in ('fsspec', 'gcsfs', 's3fs', 'etils', 'aiohttp') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_result_that_is_a_link_or_a_device_is_written_in_place(tmp_path):
    (tmp_path / "target.json").write_text("longer than what replaces it")
    (tmp_path / "link.json").symlink_to(tmp_path / "target.json")
    storage.write_bytes(tmp_path / "link.json", b"new")
    storage.write_bytes(Path("/dev/null"), b"new")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "target.json").read_text() == "new"
    assert Path("/dev/null").is_char_device()
