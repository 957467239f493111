"""Downloads from a local server that misbehaves in various ways."""

import contextlib
import fcntl
import functools
import hashlib
import http.server
import io
import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.storage_servers import serving
from tests.weights import pickle_writer
from yolox_jax.errors import UserError
from yolox_jax.weights import download
from yolox_jax.weights.download import DownloadError, fetch_official


@functools.cache  # a second call would give other bytes: a zip has the time in it
def weights(seed=0):
    """A checkpoint of one tensor, 1 MB."""
    file = io.BytesIO()
    data = np.random.default_rng(seed).bytes(1_000_000)
    pickle_writer.save(
        file, {"model": {"w": pickle_writer.tensor("Float", "0", 250_000, (250_000,), (1,))}}, {"0": data}
    )
    return file.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves one file under any name. Its attributes say how it behaves."""

    body = weights()
    validator = ("ETag", '"one"')
    ranges = True
    honors_if_range = True
    status = None  # the answer, if not the file
    cut_after = None  # bytes of the answer before the connection closes
    announced = None  # Content-Length, if not the true one
    headers = ()  # further ones
    redirect = None  # the address to redirect to
    drips = ""  # "body" or "headers": that part comes byte by byte

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []  # (path, Range)
        self.statuses = []
        self.url = f"http://127.0.0.1:{self.server_port}/release"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        if server.drips == "headers":
            self.drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000)
            return
        if server.status:
            self.send_error(server.status)
            return
        same = not server.honors_if_range or self.headers.get("If-Range") == server.validator[1]
        begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges and same else 0
        size = len(server.body)
        if begin and begin >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        self.send_header(*server.validator)
        for header in server.headers:
            self.send_header(*header)
        self.send_header("Content-Length", str(server.announced or size - begin))
        self.end_headers()
        if server.drips == "body":
            self.drip(server.body[begin:])
            return
        self.wfile.write(server.body[begin:][: server.cut_after])

    def drip(self, data):
        """Sends byte by byte until the client closes the connection."""
        with contextlib.suppress(OSError):
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(0.01)

    def log_request(self, code="-", size="-"):
        self.server.statuses.append(int(code))

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("YOLOX_JAX_WEIGHTS_URL", "YOLOX_JAX_CACHE", "YOLOX_JAX_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "SHA256", dict.fromkeys(download.SHA256, hashlib.sha256(Server.body).hexdigest()))
    server = Server()
    with serving(server):
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    def fetch(name="yolox_nano", log=lambda line: None):
        return fetch_official(name, tmp_path / "cache", server.url, log)

    return fetch


@pytest.fixture
def cut_download(server, fetch):
    """Leaves the first 400,000 bytes in the folder."""
    server.cut_after = 400_000
    with pytest.raises(DownloadError, match="after 400000 of .* 400000 bytes are kept in .*: try again"):
        fetch()
    server.cut_after = None
    server.requests.clear()


def assert_complete(path, body):
    assert path.read_bytes() == body
    assert {file.name for file in path.parent.iterdir()} == {path.name, f".{path.name}.lock"}


def test_a_file_is_fetched_once(server, fetch):
    path = fetch()
    assert path.name == "yolox_nano.pth"
    assert_complete(path, server.body)
    assert fetch() == path
    assert server.requests == [("/release/yolox_nano.pth", None)]


@pytest.mark.parametrize("name", ["yolox_darknet", "yolox_darknet53"])
def test_darknet53_has_the_file_name_of_the_release(server, fetch, name):
    assert fetch(name).name == "yolox_darknet.pth"


def test_the_environment_may_name_server_and_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLOX_JAX_WEIGHTS_URL", server.url + "/")
    monkeypatch.setenv("YOLOX_JAX_CACHE", str(tmp_path / "elsewhere"))
    assert fetch_official("yolox_s", log=lambda line: None) == tmp_path / "elsewhere" / "yolox_s.pth"
    assert server.requests == [("/release/yolox_s.pth", None)]
    monkeypatch.delenv("YOLOX_JAX_CACHE")
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path / "home"))
    assert fetch_official("yolox_s", log=lambda line: None) == tmp_path / "home" / "yolox_s.pth"


def test_an_unknown_name_lists_the_known_ones(fetch):
    with pytest.raises(
        UserError, match="'yolox_huge': choose one of yolox_nano, yolox_tiny, yolox_s, .*yolox_darknet53"
    ):
        fetch("yolox_huge")


@pytest.mark.parametrize(
    "validator", [("ETag", '"one"'), ("Last-Modified", "Thu, 19 Aug 2021 09:00:00 GMT")], ids=["ETag", "Last-Modified"]
)
def test_an_interrupted_download_resumes(server, fetch, request, validator):
    server.validator = validator
    request.getfixturevalue("cut_download")
    assert_complete(fetch(), server.body)
    assert server.requests == [("/release/yolox_nano.pth", "bytes=400000-")]
    assert server.statuses == [200, 206]


def test_a_server_without_ranges_starts_over(server, fetch, cut_download):
    server.ranges = False
    assert_complete(fetch(), server.body)


@pytest.mark.parametrize("honors_if_range", [True, False])
def test_a_file_that_has_changed_starts_over(server, fetch, cut_download, monkeypatch, honors_if_range):
    monkeypatch.setitem(download.SHA256, "yolox_nano.pth", hashlib.sha256(weights(1)).hexdigest())
    server.body, server.validator, server.honors_if_range = weights(1), ("ETag", '"two"'), honors_if_range
    assert_complete(fetch(), server.body)


def test_without_a_reliable_version_an_interrupted_download_starts_over(server, fetch, request):
    server.validator = ("ETag", 'W/"one"')
    request.getfixturevalue("cut_download")
    assert_complete(fetch(), server.body)
    assert server.requests == [("/release/yolox_nano.pth", None)]


def test_a_complete_download_that_was_not_renamed_is_not_repeated(server, fetch, cut_download, tmp_path):
    (tmp_path / "cache" / "yolox_nano.pth.part").write_bytes(server.body)
    assert_complete(fetch(), server.body)
    assert server.requests == [("/release/yolox_nano.pth", f"bytes={len(server.body)}-")]


def test_a_part_longer_than_the_file_starts_over(server, fetch, cut_download, tmp_path):
    (tmp_path / "cache" / "yolox_nano.pth.part").write_bytes(server.body + b"more")
    assert_complete(fetch(), server.body)


def test_a_wrong_length_is_an_error(server, fetch, tmp_path):
    server.announced = len(server.body) + 10
    with pytest.raises(DownloadError, match=f"after {len(server.body)} of {len(server.body) + 10} bytes"):
        fetch()
    server.announced = len(server.body) - 10
    (tmp_path / "cache" / "yolox_nano.pth.part").unlink()
    with pytest.raises(UserError, match="is not the official file and was deleted"):
        fetch()
    assert not (tmp_path / "cache" / "yolox_nano.pth").exists()


def test_a_missing_file_names_its_address_and_where_to_put_it_by_hand(server, fetch, tmp_path):
    server.status = 404
    message = re.escape(f"{server.url}/yolox_nano.pth cannot be downloaded (the server answered 404 Not Found)")
    with pytest.raises(DownloadError, match=message) as raised:
        fetch()
    assert f"put it at {tmp_path / 'cache' / 'yolox_nano.pth'}" in str(raised.value)
    assert "kept" not in str(raised.value)


def test_without_a_server_the_error_says_what_to_do(server, tmp_path):
    refused = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    refused.server_close()  # nothing listens on its port now
    url = f"http://127.0.0.1:{refused.server_port}"
    with pytest.raises(
        DownloadError, match=f"{url}/yolox_nano.pth cannot be downloaded .*refused.*put it at {tmp_path}"
    ):
        fetch_official("yolox_nano", tmp_path, url, log=lambda line: None)


def test_an_answer_that_is_not_a_weights_file_is_deleted(server, fetch, tmp_path):
    good, server.body = server.body, b"<!doctype html><title>Sign in</title>"
    with pytest.raises(UserError, match=r"yolox_nano\.pth is not the official file and was deleted .*web page"):
        fetch()
    assert not (tmp_path / "cache" / "yolox_nano.pth").exists()
    server.body = good
    assert_complete(fetch(), good)


def test_threads_that_want_the_same_file_wait_for_each_other(server, fetch, tmp_path):
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(fetch())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert paths[0].read_bytes() == server.body
    assert len(server.requests) == 1


def test_waiting_for_another_process_is_reported(server, fetch, tmp_path):
    (tmp_path / "cache").mkdir()
    waits, lines = threading.Event(), []

    def log(line):
        lines.append(line)
        waits.set()

    with (tmp_path / "cache" / ".yolox_nano.pth.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=fetch, kwargs={"log": log})
        thread.start()
        assert waits.wait(10)
        assert not server.requests
    thread.join()
    assert "another process is downloading" in lines[0]
    assert len(server.requests) == 1


def test_progress_is_a_line_every_ten_percent(server, fetch):
    lines = []
    path = fetch(log=lines.append)
    *progress, last = lines
    shares = [
        int(re.fullmatch(r"yolox_nano\.pth: +(\d+) % of 1\.0 MB, [\d.]+ MB/s(, ETA 0:00:\d\d)?", line)[1])
        for line in progress
    ]
    assert 2 <= len(shares) <= 11
    assert shares == sorted(set(shares))
    assert shares[-1] == 100
    assert last == f"downloaded {server.url}/yolox_nano.pth to {path}"


def test_on_a_terminal_progress_is_one_line_that_changes(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fetch_official("yolox_nano", tmp_path, server.url)
    progress, last, end = capsys.readouterr().out.split("\n")
    assert re.match(r"\ryolox_nano\.pth: ", progress)
    assert "100 % of 1.0 MB" in progress
    assert Path(last.split(" to ")[1]) == tmp_path / "yolox_nano.pth"
    assert not end


def test_a_folder_that_cannot_be_written_is_an_error_with_advice(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/cache cannot be written \(Not a directory\): set YOLOX_JAX_HOME"):
        fetch_official("yolox_nano", tmp_path / "file" / "cache", server.url)
