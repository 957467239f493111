"""Stores on this machine, with fixtures that give a test an empty bucket: gs:// and s3://. conftest.py imports them."""

import contextlib
import dataclasses
import functools
import http.server
import json
import logging
import threading
import urllib.request
import uuid
from collections.abc import Iterator

import pytest

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


def google_server(host: str = HOST) -> contextlib.AbstractContextManager[str]:
    """Runs a store for gs:// in a thread; gives its http address."""
    from gcp_storage_emulator.storage import Storage  # here, since most tests need no store

    from tests.google_store import GoogleHandler

    handler = functools.partial(GoogleHandler, Storage(use_memory_fs=True), threading.RLock())
    return serving(_Server((host, 0), handler))


def amazon_server() -> contextlib.AbstractContextManager[str]:
    """Runs a store for s3:// in a thread; gives its http address."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    return serving(make_server(HOST, 0, DomainDispatcherApplication(create_backend_app), threaded=True))


@contextlib.contextmanager
def serving(server) -> Iterator[str]:
    """Runs a server in a thread; gives its address."""
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    try:
        host, port = server.server_address[:2]
        yield f"http://{host}:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def google_bucket(endpoint: str) -> Bucket:
    """Makes a bucket in the store at `endpoint`."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    keep_nothing = {"retentionDurationSeconds": "0"}  # else the emulator keeps what was deleted, in memory
    body = {"name": name, "softDeletePolicy": keep_nothing}
    _send("POST", f"{endpoint}/storage/v1/b", json.dumps(body).encode())
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
    _send("PUT", f"{endpoint}/{name}")
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


def _send(method: str, address: str, body: bytes | None = None) -> None:
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(address, data=body, headers=headers, method=method)
    urllib.request.urlopen(asked, timeout=10).close()


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


@pytest.fixture(params=["gs", "s3"])
def bucket(request) -> Bucket:
    """An empty bucket of each kind of store, one after another, as `gs_bucket` and `s3_bucket`."""
    return request.getfixturevalue(f"{request.param}_bucket")


def enter(bucket: Bucket, monkeypatch) -> Bucket:
    """Makes the bucket's environment that of the test."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket
