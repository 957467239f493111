"""A proxy on 127.0.0.1 between a program and a store, whose faults a test chooses: errors, lost connections, stalls."""

import contextlib
import dataclasses
import random
import socket
import socketserver
import struct
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.storage_servers import serving


@dataclasses.dataclass
class FaultyProxy:
    """What happens to the next requests; a test may change every field while it runs."""

    endpoint: str = ""  # http://127.0.0.1:PORT, for Bucket.through
    errors: float = 0.0  # the share of requests that get status 503
    resets: float = 0.0  # the share whose connection is reset, half before the store has seen them and half after
    stalls: float = 0.0  # the share that get no answer for `stall_s`
    stall_s: float = 2.0
    status: int = 503  # of `errors`
    is_down: bool = False  # every connection is reset
    num_requests: int = 0
    num_faults: int = 0
    draws: random.Random = dataclasses.field(default_factory=lambda: random.Random(0))


@contextlib.contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Runs a proxy to the store at http address `upstream` in threads."""
    proxy = FaultyProxy()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy, server.upstream = proxy, (urlsplit(upstream).hostname, urlsplit(upstream).port)
    with serving(server) as proxy.endpoint:
        yield proxy


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False  # a stalled connection would hold the test
    allow_reuse_address = True
    request_queue_size = 128
    proxy: FaultyProxy
    upstream: tuple[str, int]


class _Handler(socketserver.StreamRequestHandler):
    """One request a connection: the store is told to close it, so that the answer ends where the connection does."""

    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self._handle()

    def _handle(self) -> None:
        proxy = self.server.proxy
        if proxy.is_down:
            proxy.num_faults += 1
            return self._reset()
        request = self._read_request()
        if not request:
            return None
        proxy.num_requests += 1
        drawn = proxy.draws.random()
        fault = drawn < proxy.errors + proxy.resets + proxy.stalls
        proxy.num_faults += fault
        if drawn < proxy.errors:
            head = f"HTTP/1.1 {proxy.status} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self.wfile.write(head.encode())
            return None
        if drawn < proxy.errors + proxy.resets / 2:
            return self._reset()
        if proxy.errors + proxy.resets <= drawn and fault:
            time.sleep(proxy.stall_s)
        with socket.create_connection(self.server.upstream, timeout=60) as store:
            store.sendall(request)
            if fault and drawn < proxy.errors + proxy.resets:
                store.recv(1)  # the store has done it, and the program does not hear of it
                return self._reset()
            while data := store.recv(1 << 16):
                if proxy.is_down:
                    return self._reset()
                self.wfile.write(data)
        return None

    def _read_request(self) -> bytes:
        """Reads a request to its end, and asks the store to close the connection after it."""
        first = self.rfile.readline()
        lines, length, chunked = [], 0, False
        while (line := self.rfile.readline()) not in (b"\r\n", b"\n", b""):
            name, _, value = line.partition(b":")
            match name.strip().lower():
                case b"content-length":
                    length = int(value)
                case b"transfer-encoding":
                    chunked = b"chunked" in value.lower()
                case b"connection":
                    continue
                case b"expect":  # "100-continue": the program is told to go on, and the store need not be asked
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    continue
            lines.append(line)
        body = self._read_chunks() if chunked else self.rfile.read(length)
        return first and b"".join([first, *lines, b"Connection: close\r\n\r\n", body])

    def _read_chunks(self) -> bytes:
        """Reads a chunked body, as it is on the wire."""
        body = b""
        while True:
            line = self.rfile.readline()
            body += line
            size = int(line.split(b";")[0], 16)
            if not size:
                return body + self.rfile.readline()
            body += self.rfile.read(size + 2)

    def _reset(self) -> None:
        """Ends the connection as a machine does that is gone, not by the orderly way."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
