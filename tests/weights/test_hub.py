"""Weights at hf:// and https://, from servers on this machine."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys

import pytest

from tests.material import ROOT
from tests.storage_servers import serving
from tests.weights.hub_server import COMMIT, TOKEN, HubServer
from yolox_jax.errors import UserError
from yolox_jax.weights import download, hub

pytest.importorskip("huggingface_hub")

_FETCH = """
import json, sys
from yolox_jax.errors import UserError
from yolox_jax.weights import hub
found = []
for address in sys.argv[1:]:
    try:
        found.append(str(hub.fetch(address)))
    except UserError as error:
        found.append(f"error: {error}")
print(json.dumps(found))
"""


def _fetch(server, home, *addresses, **environment):
    """Fetches in a process of its own, since huggingface_hub reads its environment variables when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    ours = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-c", _FETCH, *addresses]
    result = subprocess.run(command, env=kept | ours | environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def test_the_hub_is_used_as_its_own_tools_use_it(tmp_path):
    """Default and named file, revision, mirror, cache folder, token, offline mode, what is damaged or not there."""
    repositories = {
        "me/cells": {"README.md": b"#", "model.safetensors": b"one"},
        "me/old": {"a/yolox.pth": b"two"},
        "me/two": {"a.pth": b"x", "b.pth": b"y"},
        "me/private": {"model.safetensors": b"three"},
        "me/damaged": {"model.safetensors": b"four"},
    }
    with HubServer(repositories, private=["me/private"], damaged=["me/damaged"]) as server:
        found = _fetch(
            *(server, tmp_path, "hf://me/cells", f"hf://me/cells@{COMMIT}/README.md", "hf://me/old", "hf://me/two"),
            *("hf://me/private", "hf://me/none", "hf://me/cells/no.pth", "hf://cells"),
            *("hf://me/damaged", "hf://me/damaged"),
        )
        cells, readme, old, two, private, none, no_file, no_owner, damaged, again = found
        for path, content in ((cells, b"one"), (readme, b"#"), (old, b"two"), (again, b"four")):
            with open(path, "rb") as file:
                assert file.read() == content
            assert path.startswith(str(tmp_path / "hub"))
        assert "error: hf://me/two" not in two and "me/two has 2 files of weights: a.pth, b.pth: name the file: " in two
        for refused in (private, none):
            assert "cannot be downloaded" in refused and refused.endswith("private or gated repository, set HF_TOKEN")
        assert no_file.startswith("error: hf://me/cells/no.pth cannot be downloaded (")
        assert (
            no_owner == "error: hf://cells is not an address of the Hub: give hf://owner/name or hf://owner/name/file"
        )
        assert damaged.startswith(f"error: {again}, of hf://me/damaged, is damaged and was deleted (its SHA-256 is ")
        assert damaged.endswith("): try again; if it repeats, the server (HF_ENDPOINT) sends another file")
        num_requests = len(server.requests)
        addresses = "hf://me/cells", "hf://me/private", "hf://me/old", "hf://me/old/a/yolox.pth"
        offline = _fetch(server, tmp_path, *addresses, HF_HUB_OFFLINE="1")
        assert len(server.requests) == num_requests
        assert offline[0] == cells and "unset HF_HUB_OFFLINE" in offline[1]
        assert "name the file (hf://owner/name/FILE) if it is in the cache" in offline[2] and offline[3] == old
        (allowed,) = _fetch(server, tmp_path, "hf://me/private", HF_TOKEN=TOKEN)
        assert allowed.endswith("model.safetensors")


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="hf://me/x needs the package huggingface_hub .*: pip install huggingface_hub"):
        hub.fetch("hf://me/x")


def test_an_error_of_the_http_library_is_one_message(monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise RuntimeError("the proxy refused\nmore")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match="^hf://me/x cannot be downloaded .the proxy refused.: check the address and"):
        hub.fetch("hf://me/x")


def _in_cache(folder, tag, content, monkeypatch):
    """Makes huggingface_hub return a file of its cache: a link to a blob, which is a link to a store of its own."""
    import huggingface_hub

    store, blob, path = (folder / name for name in (f"store/{'c' * 64}", f"blobs/{tag}", "snapshots/b/model.pth"))
    for each in (store, blob, path):
        each.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(content)
    blob.symlink_to(f"../store/{store.name}")
    path.symlink_to(f"../../blobs/{tag}")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(path))
    return path, store


@pytest.mark.parametrize("tag", [hashlib.sha256(b"data").hexdigest(), "b" * 40])
def test_a_file_of_the_hub_is_compared_with_the_name_of_its_blob_if_that_is_a_sha256(tag, tmp_path, monkeypatch):
    path, _ = _in_cache(tmp_path, tag, b"data", monkeypatch)
    assert hub.fetch("hf://me/x") == path


def test_a_damaged_file_in_the_store_of_the_hub_s_cache_is_deleted_or_named(tmp_path, monkeypatch):
    path, store = _in_cache(tmp_path, "d" * 64, b"data", monkeypatch)
    with monkeypatch.context() as context:
        context.setattr(type(store), "unlink", _refuse)
        with pytest.raises(
            UserError, match=rf"is damaged and cannot be deleted \(.*\): delete {re.escape(str(store))}$"
        ):
            hub.fetch("hf://me/x")
    with pytest.raises(UserError, match="is damaged and was deleted .*: try again"):
        hub.fetch("hf://me/x")
    assert not path.exists() and not store.exists()


def _refuse(*_, **__):
    raise PermissionError("read-only")


class _Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"data")

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    server.requests = []
    with serving(server) as server.url:
        yield server


def _quiet(line):
    pass


def test_a_file_at_an_address_is_downloaded_once_and_each_address_has_its_own(server, tmp_path):
    first = download.fetch_url(f"{server.url}/a/m.safetensors", tmp_path, _quiet)
    again = download.fetch_url(f"{server.url}/a/m.safetensors", tmp_path, _quiet)
    other = download.fetch_url(f"{server.url}/b/m.safetensors?download=1", tmp_path, _quiet)
    assert first == again != other and first.name == other.name == "m.safetensors"
    assert first.read_bytes() == b"data"
    assert server.requests == ["/a/m.safetensors", "/b/m.safetensors?download=1"]


def test_an_address_may_state_the_sha256(server, tmp_path):
    url, right = f"{server.url}/m.safetensors", hashlib.sha256(b"data").hexdigest()
    with pytest.raises(UserError, match="is not the expected file and was deleted .its SHA-256 is .* instead of 0000"):
        download.fetch_url(f"{url}#sha256={'0' * 64}", tmp_path, _quiet)
    path = download.fetch_url(f"{url}#sha256={right.upper()}", tmp_path, _quiet)
    path.write_bytes(b"changed")
    with pytest.raises(UserError, match="m.safetensors is not the expected file: its SHA-256 is "):
        download.fetch_url(f"{url}#sha256={right}", tmp_path, _quiet)


def test_a_pth_that_is_none_is_deleted(server, tmp_path):
    with pytest.raises(UserError, match="m.pth is not the expected file and was deleted"):
        download.fetch_url(f"{server.url}/m.pth", tmp_path, _quiet)
    assert not list(tmp_path.rglob("m.pth"))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://example.org/m.pth", "is not encrypted, .*: give an https address"),
        ("https://example.org/", "names no file"),
        ("https://[x/m.pth", "is not an address .*: give https://"),
        *[(f"https://example.org/a/{name}", "names no file") for name in ("..", "%2e%2e", "a%5Cm.pth", "m%00.pth")],
        ("https://example.org/m.pth#sha256=12", "no SHA-256 after #"),
        ("https://example.org/m.pth#main", "no SHA-256 after #"),
    ],
)
def test_addresses_that_are_refused_before_any_request(url, found, tmp_path):
    with pytest.raises(UserError, match=found):
        download.fetch_url(url, tmp_path)
