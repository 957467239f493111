"""Downloads the official YOLOX weights, once, into a cache folder.

Two environment variables: YOLOX_JAX_CACHE names the folder, YOLOX_JAX_WEIGHTS_URL another server with the same files.
"""

import fcntl
import http
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

from yolox_jax.weights.torch_file import verify_pth

RELEASE_URL = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"

_FILES = {
    "yolox_nano": "yolox_nano.pth",
    "yolox_tiny": "yolox_tiny.pth",
    "yolox_s": "yolox_s.pth",
    "yolox_m": "yolox_m.pth",
    "yolox_l": "yolox_l.pth",
    "yolox_x": "yolox_x.pth",
    "yolox_darknet": "yolox_darknet.pth",
    "yolox_darknet53": "yolox_darknet.pth",
}
_TIMEOUT = 30.0  # seconds without an answer or without a byte
_CHUNK = 1 << 18  # bytes


def fetch_official(
    name: str,
    cache_dir: str | Path | None = None,
    base_url: str | None = None,
    log: Callable[[str], object] = print,
) -> Path:
    """The path of the official weights `name`, downloaded if the cache folder lacks them.

    A download that was cut goes on where it stopped when the server still has the same file. The file gets its name only
    when it is whole, and processes that want the same one wait for each other.
    Raises ValueError for an unknown name or a file that holds no weights, ConnectionError if it cannot be fetched.
    """
    if name not in _FILES:
        raise ValueError(f"no official weights are called {name!r}; there are {', '.join(_FILES)}")
    folder = Path(cache_dir or os.environ.get("YOLOX_JAX_CACHE") or Path.home() / ".cache" / "yolox_jax").expanduser()
    base_url = base_url or os.environ.get("YOLOX_JAX_WEIGHTS_URL") or RELEASE_URL
    url = f"{base_url.rstrip('/')}/{_FILES[name]}"
    target = folder / _FILES[name]
    if target.exists():
        return target

    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with part.open("ab") as file:
        _lock(file, lambda: log(f"another process is downloading {target}; waiting for it"))
        if target.exists():  # that process finished it
            part.unlink(missing_ok=True)
            return target
        try:
            _download(url, file, _Progress(target.name, log))
        except (OSError, http.client.HTTPException) as error:
            kept = f"{file.tell()} bytes are kept in {part}: run again to go on. " if file.tell() else ""
            raise ConnectionError(
                f"{url} was not fetched: {_reason(error)}. {kept}"
                f"Without a network, get the file on another machine and put it at {target}"
            ) from error
        try:
            verify_pth(part)
        except ValueError as error:
            _restart(file)
            raise ValueError(f"what {url} sent is no weights file, and was thrown away: {error}") from error
        _validator_path(part).unlink(missing_ok=True)
        os.replace(part, target)
    log(f"{url} is now {target}")
    return target


def _lock(file: IO[bytes], on_wait: Callable[[], object]) -> None:
    """Makes this process the only writer of `file`, until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0, os.SEEK_END)  # the other process may have written


def _download(url: str, file: IO[bytes], progress: "_Progress") -> None:
    """Appends to `file` what it lacks of `url`, or starts it over where the server cannot go on."""
    validator_path = _validator_path(Path(file.name))
    have = file.tell()
    validator = validator_path.read_text() if have and validator_path.exists() else ""
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if validator else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not validator:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # nothing is missing
        _restart(file)
        return _download(url, file, progress)

    with response:
        goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if goes_on and not validator:
            raise ConnectionError("the server sent a part of the file without being asked for one")
        if goes_on and not _continues(response.headers, have, validator):
            _restart(file)
            return _download(url, file, progress)
        if not goes_on:
            _restart(file)
            validator_path.write_text(_validator(response.headers))
        length = response.headers.get("Content-Length")
        total = file.tell() + int(length) if length else None
        with progress:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.show(file.tell(), total)
    file.flush()
    if total is not None and file.tell() != total:
        raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")


def _continues(headers: http.client.HTTPMessage, have: int, validator: str) -> bool:
    """Whether a partial answer begins at byte `have` of the file that the validator stands for."""
    return headers.get("Content-Range", "").startswith(f"bytes {have}-") and _validator(headers) in (validator, "")


def _validator(headers: http.client.HTTPMessage) -> str:
    """What tells this version of the file from others; empty where the server says nothing that may be relied on."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # a weak tag does not promise the same bytes
        return etag
    return headers.get("Last-Modified", "")


def _validator_path(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _restart(file: IO[bytes]) -> None:
    """Empties the file. It is not deleted: another process may wait for its lock."""
    file.seek(0)
    file.truncate()
    _validator_path(Path(file.name)).unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    match error:
        case urllib.error.HTTPError():
            return f"the server answered {error.code} {error.reason}"
        case urllib.error.URLError():
            return str(error.reason)
    return str(error)


class _Progress:
    """Shows a download: on a terminal in one line that changes, elsewhere by a line every 10 %."""

    def __init__(self, name: str, log: Callable[[str], object]) -> None:
        self._name = name
        self._log = log
        self._on_terminal = log is print and sys.stdout.isatty()

    def __enter__(self) -> Self:
        self._start_time = self._shown_time = time.monotonic()
        self._start_bytes: int | None = None
        self._shown_tenth = 0
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_terminal:
            print()

    def show(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._start_bytes is None:  # a resumed download did not just receive all of this
            self._start_bytes = done
        tenth = 10 * done // total if total else 0
        finished = done == total
        if not finished and (now - self._shown_time < 0.1 if self._on_terminal else tenth == self._shown_tenth):
            return
        self._shown_time, self._shown_tenth = now, tenth
        speed = (done - self._start_bytes) / max(now - self._start_time, 1e-3)
        share = f"{100 * done // total:3d} % of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        line = f"{self._name}: {share}, {speed / 1e6:.1f} MB/s"
        if self._on_terminal:
            print(f"\r{line}  ", end="", flush=True)
        else:
            self._log(line)
