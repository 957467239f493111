"""A server that sends something else than the official file leaves nothing wrong in the cache and stalls nobody."""

import re
import struct
import zipfile

import pytest

from tests.weights import pickle_writer
from tests.weights.test_download import assert_complete, cut_download, fetch, server, weights  # noqa: F401
from yolox_jax.errors import UserError
from yolox_jax.weights import connection, download, official_files
from yolox_jax.weights.download import DownloadError


def test_every_official_file_but_one_has_a_checksum():
    assert set(official_files.FILES.values()) - official_files.SHA256.keys() == {"yolox_darknet.pth"}
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in official_files.SHA256.values())
    assert len(set(official_files.SHA256.values())) == 6


def _zip(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path.read_bytes()


_WRONG = {
    "another file's bytes": (
        lambda path: weights(1),
        "its SHA-256 is [0-9a-f]{64} instead of [0-9a-f]{64}.: try again",
    ),
    "nothing": (lambda path: b"", "is empty"),
    "a web page": (lambda path: b"<html>Sign in</html>", "is a web page"),
    "a pickle that runs": (
        lambda path: pickle_writer.save(
            path, pickle_writer.Call(pickle_writer.Global("os", "system"), ("false",))
        ).read_bytes(),
        "asks to run os.system",
    ),
    "a zip bomb": (lambda path: _zip(path, ("archive/data.pkl", bytes(10**7))), "is compressed or encrypted"),
    "a few bytes": (lambda path: struct.pack("<I", 7), "is not a torch checkpoint"),
}


@pytest.mark.parametrize("kind", _WRONG)
def test_a_wrong_file_is_not_kept(server, fetch, tmp_path, kind):  # noqa: F811
    make, message = _WRONG[kind]
    good, server.body = server.body, make(tmp_path / "made")
    with pytest.raises(UserError, match=rf"is not the official file and was deleted (?s:.)*{message}"):
        fetch()
    assert not (tmp_path / "cache" / "yolox_nano.pth").exists()
    assert (tmp_path / "cache" / "yolox_nano.pth.part").stat().st_size == 0
    server.body = good
    assert_complete(fetch(), good)


def test_a_wrong_file_in_the_cache_is_named_and_not_used(server, fetch):  # noqa: F811
    path = fetch()
    path.write_bytes(weights(1))
    with pytest.raises(
        UserError, match=r"yolox_nano\.pth is not the official file: .* delete it, and it is downloaded"
    ):
        fetch()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("Content-Type", "text/html; charset=utf-8"), "the server sent text/html, not a file"),
        (("Content-Type", "application/json"), "the server sent application/json, not a file"),
        (("Content-Encoding", "gzip"), "the server sent it encoded as gzip"),
    ],
)
def test_an_answer_of_another_type_is_refused_and_keeps_what_came_before(
    server,  # noqa: F811
    fetch,  # noqa: F811
    cut_download,  # noqa: F811
    header,
    message,
):
    server.headers = (header,)
    with pytest.raises(DownloadError, match=rf"cannot be downloaded .{message}"):
        fetch()
    server.headers = ()
    assert_complete(fetch(), server.body)


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/file", "file:///etc/passwd"])
def test_a_redirect_to_another_scheme_is_not_followed(server, fetch, address):  # noqa: F811
    server.redirect = address
    with pytest.raises(DownloadError, match="cannot be downloaded .*(redirects from http to ftp|file:///etc/passwd)"):
        fetch()


def test_more_bytes_than_any_official_file_has_are_refused(server, fetch, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(download, "MOST_BYTES", 500_000)
    with pytest.raises(
        DownloadError, match="the server announced 1000[0-9]{3} bytes, more than the 500000 that are read"
    ):
        fetch()
    server.announced = "unknown"  # without a length, the body ends with the connection
    with pytest.raises(DownloadError, match="more bytes came than the 500000 that are read"):
        fetch()
    assert (tmp_path / "cache" / "yolox_nano.pth.part").stat().st_size == 0


@pytest.mark.parametrize(
    ("part", "limit", "message"),
    [
        ("headers", "HEADER_TIME", "no complete answer in 0.2 seconds"),
        ("body", "WINDOW", r"only \d+ bytes came in 0.2 seconds"),
    ],
)
def test_a_server_that_drips_is_given_up(server, fetch, monkeypatch, part, limit, message):  # noqa: F811
    server.drips = part
    monkeypatch.setattr(connection, limit, 0.2)
    with pytest.raises(DownloadError, match=message):
        fetch()
    server.drips = ""
    monkeypatch.setattr(connection, limit, 60.0)
    assert_complete(fetch(), server.body)


@pytest.mark.parametrize("name", ["yolox_nano.pth.part", "yolox_nano.pth.part.version"])
def test_a_link_in_the_place_of_a_part_is_not_followed(server, fetch, tmp_path, name):  # noqa: F811
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).symlink_to(precious)
    assert_complete(fetch(), server.body)
    assert precious.read_text() == "mine"
