"""Opens an address over HTTP, with limits: a server can neither stall nor lead elsewhere than it should."""

import contextlib
import http.client
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import IO, Any

SILENCE = 30.0  # seconds without any byte
HEADER_TIME = 60.0  # seconds until the answer's headers are complete, redirects included
WINDOW = 60.0  # seconds in which _LEAST_BYTES must arrive
_LEAST_BYTES = 60_000  # 1 kB/s: yolox_nano would take two hours
_CHUNK = 1 << 18  # bytes
# text/plain is what some servers send for every ending that they do not know.
_NOT_FILES = ("text/html", "text/xml", "application/json", "application/xhtml+xml", "application/xml")


class RefusedError(OSError):
    """The server's answer is not what was asked for."""


@contextlib.contextmanager
def opened(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    """Sends a GET request and yields the answer.

    Raises:
      OSError, http.client.HTTPException: there is no answer, or it is an error or a text instead of a file.
    """
    sockets: list[socket.socket] = []
    is_late = threading.Event()

    def stop() -> None:
        is_late.set()
        for each in sockets:
            with contextlib.suppress(OSError):  # it is closed already
                each.shutdown(socket.SHUT_RDWR)

    opener = urllib.request.build_opener(_SameScheme, _Http(sockets), _Https(sockets))
    # Bytes that come one by one never let a socket's own timeout pass.
    timer = threading.Timer(HEADER_TIME, stop)
    timer.daemon = True
    timer.start()
    late = f"no complete answer in {HEADER_TIME:g} seconds"
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=SILENCE)
    except (OSError, http.client.HTTPException) as error:
        if is_late.is_set():
            raise TimeoutError(late) from error
        raise
    finally:
        timer.cancel()
    with response:
        if is_late.is_set():  # the headers that came before count as complete
            raise TimeoutError(late)
        kind = response.headers.get_content_type()
        if kind in _NOT_FILES:
            raise RefusedError(f"the server sent {kind}, not a file: a page of a proxy or a login?")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise RefusedError(f"the server sent it encoded as {response.headers['Content-Encoding']}")
        yield response


def read(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yields the body as it arrives.

    Raises:
      OSError: fewer than `_LEAST_BYTES` came in `WINDOW` seconds.
    """
    started, num_bytes = time.monotonic(), 0
    while chunk := response.read1(_CHUNK):
        yield chunk
        num_bytes += len(chunk)
        if num_bytes >= _LEAST_BYTES:
            started, num_bytes = time.monotonic(), 0
        elif time.monotonic() - started > WINDOW:
            raise TimeoutError(f"only {num_bytes} bytes came in {WINDOW:g} seconds")


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows a redirect from http to https, but not to http from https, nor to ftp or another scheme."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = (urllib.parse.urlsplit(url).scheme for url in (req.full_url, newurl))
        if new not in (old, "https"):
            raise RefusedError(f"the server redirects from {old} to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Http(urllib.request.HTTPHandler):
    """Keeps the sockets of its connections in a list."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._sockets = sockets

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_keeping(http.client.HTTPConnection, self._sockets), req)


class _Https(urllib.request.HTTPSHandler):
    """Keeps the sockets of its connections in a list."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._sockets = sockets

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_keeping(http.client.HTTPSConnection, self._sockets), req)


def _keeping(connection: Any, sockets: list[socket.socket]) -> Any:
    class Keeping(connection):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    return Keeping
