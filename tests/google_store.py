"""The package gcp-storage-emulator and what it lacks: preconditions, parallel requests, every byte of an upload."""

import functools
import io
import json
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import RequestHandler


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
