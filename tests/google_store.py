"""The package gcp-storage-emulator, and what it lacks: preconditions, and several requests at a time."""

import io
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import RequestHandler


class GoogleHandler(RequestHandler):
    """Handles one request."""

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
