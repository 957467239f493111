"""A server that answers as the Hugging Face Hub does: files of one repository, to those who have the token."""

import hashlib
import http.server
import json

from tests.storage_servers import serving

COMMIT = "a" * 40
TOKEN = "hf_secret"


class HubServer(http.server.ThreadingHTTPServer):
    """Serves `repositories`, which maps owner/name to file names and bytes; `requests` has (method, path).

    The files of a repository in `damaged` are sent with other bytes, of the same number, the first time.
    """

    def __init__(self, repositories, private=(), damaged=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.damaged = set(damaged)
        self.repositories, self.private, self.requests = repositories, private, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._serving = serving(self)

    def __enter__(self):
        self._serving.__enter__()
        return self

    def __exit__(self, *error):
        self._serving.__exit__(*error)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.server.requests.append((self.command, self.path))
        path = self.path.split("?")[0].strip("/")
        is_api = path.startswith("api/models/")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        repository = f"{owner}/{name}"
        files = self.server.repositories.get(repository)
        is_allowed = repository not in self.server.private or self.headers["Authorization"] == f"Bearer {TOKEN}"
        if files is None or not is_allowed:
            return self.send(401 if files is None else 403, b"", {"X-Error-Code": "RepoNotFound"})
        if is_api:
            listed = [{"rfilename": file} for file in files]
            content = {"id": repository, "sha": COMMIT, "siblings": listed, "private": False, "tags": []}
            if "tree" in rest:
                content = [{"type": "file", "path": file, "size": len(files[file]), "oid": "b" * 40} for file in files]
            return self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})
        file = "/".join(rest[2:])  # after resolve/REVISION
        if rest[0] != "resolve" or file not in files:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        tag, content = hashlib.sha256(files[file]).hexdigest(), files[file]
        if self.command == "GET" and repository in self.server.damaged:
            self.server.damaged.remove(repository)
            content = bytes(len(content))
        self.send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass
