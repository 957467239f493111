"""Downloads the official YOLOX weights, and files in buckets, into the cache folder, once.

Environment variables: YOLOX_JAX_HOME moves the whole cache (cache_folder.py), YOLOX_JAX_CACHE only the weights, and
YOLOX_JAX_WEIGHTS_URL names another server with the same files.
"""

import http
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from yolox_jax import storage
from yolox_jax.cache_folder import cache_folder
from yolox_jax.errors import NotFoundError, UserError, writing
from yolox_jax.locks import locked
from yolox_jax.storage import BucketPath
from yolox_jax.storage.progress import Progress
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
_TIMEOUT = 30.0  # seconds without a response or further data
_CHUNK = 1 << 18  # bytes


class DownloadError(UserError, ConnectionError):
    """The official weights cannot be downloaded."""


def local_file(spec: str, log: Callable[[str], object] = print) -> str:
    """Returns the path of a local copy of a file in a bucket; anything else, a folder in a bucket too, as it is.

    Raises:
      UserError: the bucket cannot be read, or the cache folder cannot be written.
    """
    path = storage.resolve(spec)
    if not isinstance(path, BucketPath):
        return spec
    target = cache_folder() / "weights" / path.scheme / Path(*path.parts)
    try:
        storage.copy_file(path, target, advice="set YOLOX_JAX_HOME to a larger disk, or free some space", log=log)
    except NotFoundError:
        return spec
    return str(target)


def fetch_official(
    name: str,
    cache_dir: str | Path | None = None,
    base_url: str | None = None,
    log: Callable[[str], object] = print,
) -> Path:
    """Returns the path of the official weights `name`, after downloading them if the folder lacks them.

    Resumes an interrupted download if the server still has the same file. The file gets its name only when it is
    complete, and processes that want the same file wait for each other.

    Args:
      name: such as yolox_s.
      cache_dir: YOLOX_JAX_CACHE or the cache folder by default.
      base_url: YOLOX_JAX_WEIGHTS_URL or the official release by default.
      log: called with each line of progress.

    Raises:
      UserError: the name is unknown, the folder cannot be written, or what the server sent is not a weights file.
      DownloadError: the file cannot be downloaded.
    """
    if name not in _FILES:
        raise UserError(f"there are no official weights {name!r}", f"choose one of {', '.join(_FILES)}")
    folder = Path(cache_dir or os.environ.get("YOLOX_JAX_CACHE") or cache_folder()).expanduser()
    base_url = base_url or os.environ.get("YOLOX_JAX_WEIGHTS_URL") or RELEASE_URL
    url = f"{base_url.rstrip('/')}/{_FILES[name]}"
    target = folder / _FILES[name]
    if target.exists():
        return target

    with writing(folder, "set YOLOX_JAX_HOME to a folder that can be written, or free some space"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = locked(
            target.with_name(f".{target.name}.lock"),
            on_busy=lambda: log(f"another process is downloading {target}; waiting for it"),
        )
        with lock:
            if not target.exists():  # else the other process finished it
                _fetch(url, target, log)
    return target


def _fetch(url: str, target: Path, log: Callable[[str], object]) -> None:
    """Downloads to a .part file beside `target`, verifies it and renames it."""
    part = target.with_name(target.name + ".part")
    with part.open("ab") as file:
        try:
            _download(url, file, Progress(target.name, log))
        except (OSError, http.client.HTTPException) as error:
            kept = f"; {file.tell()} bytes are kept in {part}" if file.tell() else ""
            raise DownloadError(
                f"{url} cannot be downloaded ({_reason(error)}{kept})",
                f"try again or, without a network, download it on another machine and put it at {target}",
            ) from error
        try:
            verify_pth(part)
        except UserError as error:
            _restart(file)
            raise UserError(
                f"the download of {url} is not a weights file and was deleted ({error.what})", error.advice
            ) from error
        _validator_path(part).unlink(missing_ok=True)
        os.replace(part, target)
    log(f"downloaded {url} to {target}")


def _download(url: str, file: IO[bytes], progress: Progress) -> None:
    """Appends the rest of `url` to `file`, or starts over if the server cannot resume."""
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
            return  # the file was complete
        _restart(file)
        return _download(url, file, progress)

    with response:
        resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if resumes and not validator:
            raise ConnectionError("the server sent a part of the file, but all of it was requested")
        if resumes and not _continues(response.headers, have, validator):
            _restart(file)
            return _download(url, file, progress)
        if not resumes:
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
    """Returns True if a partial response begins at byte `have` of the same version of the file."""
    return headers.get("Content-Range", "").startswith(f"bytes {have}-") and _validator(headers) in (validator, "")


def _validator(headers: http.client.HTTPMessage) -> str:
    """Returns the header that identifies this version of the file, or "" if the server sends none that is reliable."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # a weak tag does not promise the same bytes
        return etag
    return headers.get("Last-Modified", "")


def _validator_path(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _restart(file: IO[bytes]) -> None:
    """Empties the file, and forgets its version."""
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
