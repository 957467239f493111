"""Stores on 127.0.0.1, with fixtures that give a test an empty bucket: gs:// and s3://.

A test module imports the fixtures that it uses, with what they need:
`from tests.storage_servers import gs_bucket, gs_server`.
"""

import contextlib
import dataclasses
import functools
import http.server
import io
import json
import logging
import threading
import uuid
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests
from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

HOST = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Bucket:
    """An empty bucket, and the environment in which a program finds it."""

    address: str  # such as gs://bucket-1
    endpoint: str  # http://127.0.0.1:PORT
    environment: dict[str, str]

    def through(self, endpoint: str) -> "Bucket":
        """The same bucket, with its server behind a proxy (tests/faulty_proxy.py)."""
        moved = {name: value.replace(self.endpoint, endpoint) for name, value in self.environment.items()}
        return Bucket(self.address, endpoint, moved)


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # of connections: one more than fits waits for a second, and the default is five


def google_server() -> contextlib.AbstractContextManager[str]:
    """Runs a store for gs:// in a thread; gives its http address."""
    handler = functools.partial(_GoogleHandler, Storage(use_memory_fs=True), threading.RLock())
    return _serving(_Server((HOST, 0), handler))


def amazon_server() -> contextlib.AbstractContextManager[str]:
    """Runs a store for s3:// in a thread; gives its http address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    return _serving(make_server(HOST, 0, DomainDispatcherApplication(create_backend_app), threaded=True))


@contextlib.contextmanager
def _serving(server) -> Iterator[str]:
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.05), daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _read_parts(read_data, handler, query):
    """Reads the body of a request like the emulator's own function, which loses a line break at the end of a file."""
    content_type = handler.headers.get("Content-Type") or ""
    if not content_type.startswith("multipart/related"):
        return read_data(handler, query)
    body = handler.rfile.read(int(handler.headers["Content-Length"]))
    boundary = b"--" + content_type.partition("boundary=")[2].strip("\"'").encode()
    _, meta, rest = body.split(boundary, 2)
    _, _, content = rest[: rest.rindex(b"\n" + boundary)].partition(b"\n\n")  # as gcsfs writes it
    return {"meta": json.loads(meta.partition(b"\n\n")[2]), "content": content, "content-type": "binary"}


emulator._read_data = functools.partial(_read_parts, emulator._read_data)


def google_bucket(endpoint: str) -> Bucket:
    """Makes a bucket in the store at `endpoint`."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    keep_nothing = {"retentionDurationSeconds": "0"}  # else the emulator keeps what was deleted, in memory
    body = {"name": name, "softDeletePolicy": keep_nothing}
    requests.post(f"{endpoint}/storage/v1/b", json=body, timeout=10).raise_for_status()
    return Bucket(
        f"gs://{name}",
        endpoint,
        {
            "STORAGE_EMULATOR_HOST": endpoint,  # gcsfs, and so epath
            "TENSORSTORE_GCS_HTTP_URL": endpoint,  # tensorstore, and so orbax's arrays
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks for the bucket's type by gRPC, which nobody answers
            "NO_GCE_CHECK": "true",
        },
    )


def amazon_bucket(endpoint: str) -> Bucket:
    """Makes a bucket in the store at `endpoint`."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    requests.put(f"{endpoint}/{name}", timeout=10).raise_for_status()
    return Bucket(
        f"s3://{name}",
        endpoint,
        {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )


@pytest.fixture(scope="session")
def gs_server() -> Iterator[str]:
    with google_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    with amazon_server() as endpoint:
        yield endpoint


@pytest.fixture
def gs_bucket(gs_server, monkeypatch) -> Bucket:
    """An empty bucket gs://…, whose environment is that of the test too."""
    return enter(google_bucket(gs_server), monkeypatch)


@pytest.fixture
def s3_bucket(s3_server, monkeypatch) -> Bucket:
    """An empty bucket s3://…, whose environment is that of the test too."""
    return enter(amazon_bucket(s3_server), monkeypatch)


def enter(bucket: Bucket, monkeypatch) -> Bucket:
    """Makes the bucket's environment that of the test."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


class _GoogleHandler(RequestHandler):
    """The emulator's handler of a request, and what it lacks: preconditions, and several requests at a time."""

    def __init__(self, storage, lock, *args):
        self.lock = lock
        super().__init__(storage, *args)

    def _handle(self, handle) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length:  # read outside the lock: another client's body may be slow
            self.rfile = io.BytesIO(self.rfile.read(length))
        connection, self.wfile = self.wfile, io.BytesIO()
        with self.lock:
            status = self._failed_precondition()
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                handle()
        answer, self.wfile = self.wfile.getvalue(), connection
        self.wfile.write(answer)

    def _failed_precondition(self) -> int | None:
        """The status of a request whose ifGenerationMatch, ifGenerationNotMatch or generation does not hold."""
        address = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        _, _, after = address.path.partition("/b/")
        bucket, _, name = after.partition("/o")
        name = asked.get("name") or unquote(name.removeprefix("/"))
        if not name:
            return self._upload_precondition(bucket, asked)
        found = self._generation(bucket, name)
        if asked.get("ifGenerationMatch", found) != found:
            return 412
        if asked.get("ifGenerationNotMatch") == found:
            return 304
        return 404 if asked.get("generation", found) != found else None

    def _upload_precondition(self, bucket: str, asked: dict[str, str]) -> int | None:
        """Of an upload that names its object in its body."""
        if "ifGenerationMatch" not in asked:
            return None
        body = self.rfile.read()
        self.rfile = io.BytesIO(body)
        name = body.split(b'"name":')[1].split(b'"')[1].decode()
        return 412 if self._generation(bucket, name) != asked["ifGenerationMatch"] else None

    def _generation(self, bucket: str, name: str) -> str:
        try:
            return self.storage.get_file_obj(bucket, name)["generation"]
        except (NotFound, KeyError):
            return "0"  # as Google says that there must be no such object

    def do_GET(self):
        self._handle(super().do_GET)

    def do_POST(self):
        self._handle(super().do_POST)

    def do_PUT(self):
        self._handle(super().do_PUT)

    def do_DELETE(self):
        self._handle(super().do_DELETE)

    def do_PATCH(self):
        self._handle(super().do_PATCH)

    def log_message(self, *args):
        pass
