"""Downloads the official YOLOX weights, and files at https addresses and in buckets, into the cache folder, once.

Environment variables: YOLOX_JAX_HOME moves the whole cache (cache_folder.py), YOLOX_JAX_CACHE only the weights, and
YOLOX_JAX_WEIGHTS_URL names another server with the same files.
"""

import contextlib
import hashlib
import http
import http.client
import os
import re
import stat
import urllib.error
import urllib.parse
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from yolox_jax import storage
from yolox_jax.cache_folder import cache_folder
from yolox_jax.errors import NotFoundError, UserError, writing
from yolox_jax.locks import locked
from yolox_jax.storage import BucketPath
from yolox_jax.storage.progress import Progress
from yolox_jax.weights import connection, hub
from yolox_jax.weights.official_files import FILES, MOST_BYTES, RELEASE_URL, SHA256
from yolox_jax.weights.torch_file import verify_pth


class DownloadError(UserError, ConnectionError):
    """A file cannot be downloaded."""


def local_file(spec: str, log: Callable[[str], object] = print) -> str:
    """Returns the path of a local copy of a file that hf://, https:// or a bucket has; anything else as it is.

    A folder in a bucket is also returned as it is.

    Raises:
      UserError: the file cannot be downloaded, or the cache folder cannot be written.
    """
    if spec.startswith(hub.SCHEME):
        return str(hub.fetch(spec))
    if is_url(spec):
        return str(fetch_url(spec, log=log))
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
    complete and has the SHA-256 of official_files.py, which a file that is there already must have too. Processes that
    want the same file wait for each other.

    Args:
      name: such as yolox_s.
      cache_dir: YOLOX_JAX_CACHE or the cache folder by default.
      base_url: YOLOX_JAX_WEIGHTS_URL or the official release by default.
      log: called with each line of progress.

    Raises:
      UserError: the name is unknown, the folder cannot be written, or what the server sent is not a weights file.
      DownloadError: the file cannot be downloaded.
    """
    if name not in FILES:
        raise UserError(f"there are no official weights {name!r}", f"choose one of {', '.join(FILES)}")
    folder = _folder(cache_dir)
    base_url = base_url or os.environ.get("YOLOX_JAX_WEIGHTS_URL") or RELEASE_URL
    url = f"{base_url.rstrip('/')}/{FILES[name]}"
    target = folder / FILES[name]
    return _cached(url, target, SHA256.get(target.name), "the official file", log)


def is_url(spec: str) -> bool:
    """Returns whether a text is an address that `fetch_url` takes."""
    return spec.startswith(("https://", "http://"))


def fetch_url(url: str, cache_dir: str | Path | None = None, log: Callable[[str], object] = print) -> Path:
    """Returns the path of the file at an https address, after downloading it as `fetch_official` does.

    A file of the cache is not compared with the server's. The address may end in #sha256=… with 64 hexadecimal digits,
    which the file must then have; the official files must have theirs. http is for this machine alone.

    Raises:
      UserError: as `fetch_official`.
      DownloadError: the file cannot be downloaded.
    """
    address, _, fragment = url.partition("#")
    try:
        parts = urllib.parse.urlsplit(address)
    except ValueError as error:
        raise UserError(f"{url} is not an address ({error})", "give https://…/FILE") from error
    name = PurePosixPath(urllib.parse.unquote(parts.path)).name
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(
            f"{url} is not encrypted, so anyone on the way could change the weights", "give an https address"
        )
    is_name = name != ".." and re.fullmatch(r"[^\\/:\x00-\x1f]+", name)  # a file's name on any system
    if not is_name or not re.fullmatch(r"(sha256=[0-9a-fA-F]{64})?", fragment):
        raise UserError(f"{url} names no file, or no SHA-256 after #", "give https://…/FILE or https://…/FILE#sha256=…")
    expected = fragment.removeprefix("sha256=").lower() or None
    if address.startswith(f"{RELEASE_URL}/"):
        expected = expected or SHA256.get(name)
    # One folder for each address: files of several servers have the same name.
    folder = _folder(cache_dir) / "weights" / "https" / hashlib.sha256(address.encode()).hexdigest()[:16]
    return _cached(address, folder / name, expected, "the expected file", log)


def _folder(cache_dir: str | Path | None) -> Path:
    return Path(cache_dir or os.environ.get("YOLOX_JAX_CACHE") or cache_folder()).expanduser()


def _cached(url: str, target: Path, expected: str | None, what: str, log: Callable[[str], object]) -> Path:
    """Returns `target`, downloaded from `url` if it is not there; `expected` is its SHA-256 if known."""
    if not target.exists():
        with writing(target.parent, "set YOLOX_JAX_HOME to a folder that can be written, or free some space"):
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = locked(
                target.with_name(f".{target.name}.lock"),
                on_busy=lambda: log(f"another process is downloading {target}; waiting for it"),
            )
            with lock:
                if not target.exists():  # else the other process finished it
                    _fetch(url, target, expected, what, log)
    if expected and (found := sha256(target)) != expected:
        raise UserError(
            f"{target} is not {what}: its SHA-256 is {found} instead of {expected}",
            "delete it, and it is downloaded again; weights of your own are named by their path",
        )
    return target


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, as hexadecimal digits.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return storage.sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})", "check the path") from error


def _fetch(url: str, target: Path, expected: str | None, what: str, log: Callable[[str], object]) -> None:
    """Downloads to a .part file beside `target`, verifies it and renames it."""
    part = target.with_name(target.name + ".part")
    with _open_part(part) as file:
        try:
            _download(url, file, part, Progress(target.name, log))
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, connection.RefusedError):
                _restart(file, part)
            kept = f"; {file.tell()} bytes are kept in {part}" if file.tell() else ""
            raise DownloadError(
                f"{url} cannot be downloaded ({_reason(error)}{kept})",
                f"try again or, without a network, download it on another machine and put it at {target}",
            ) from error
        try:
            found = sha256(part)
            if found != expected:
                if target.suffix == ".pth":
                    verify_pth(part)  # for a clearer reason, if it is not a weights file at all
                if expected:
                    raise UserError(f"its SHA-256 is {found} instead of {expected}", "try again")
        except UserError as error:
            _restart(file, part)
            raise UserError(
                f"the download of {url} is not {what} and was deleted ({error.what})", error.advice
            ) from error
        _version_path(part).unlink(missing_ok=True)
        os.replace(part, target)
    log(f"downloaded {url} to {target}")


def _open_part(part: Path) -> IO[bytes]:
    """Opens the file for appending; a link in its place is removed, and what it leads to left alone."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(part.lstat().st_mode):
            part.unlink()
    # Not on Windows; there, links need special rights.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(part, flags, 0o666), "ab")
    file.seek(0, os.SEEK_END)
    return file


def _download(url: str, file: IO[bytes], part: Path, progress: Progress) -> None:
    """Appends the rest of `url` to `file`, or starts over if the server cannot resume."""
    version_path = _version_path(part)
    have = file.tell()
    version = version_path.read_text() if have and version_path.is_file() and not version_path.is_symlink() else ""
    headers = {"Range": f"bytes={have}-", "If-Range": version} if version else {}
    with contextlib.ExitStack() as stack:
        try:
            response = stack.enter_context(connection.opened(url, headers))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not version:
                raise
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return  # the file was complete
            _restart(file, part)
            return _download(url, file, part, progress)
        resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if resumes and not version:
            raise connection.RefusedError("the server sent a part of the file, but all of it was requested")
        if resumes and not _continues(response.headers, have, version):
            _restart(file, part)
            return _download(url, file, part, progress)
        if not resumes:
            _restart(file, part)
            version_path.unlink(missing_ok=True)  # a link must not be written through
            version_path.write_text(_version(response.headers))
        length = response.headers.get("Content-Length", "")
        total = file.tell() + int(length) if length.isdecimal() else None
        if (total or 0) > MOST_BYTES:
            raise connection.RefusedError(
                f"the server announced {total} bytes, more than the {MOST_BYTES} that are read"
            )
        with progress:
            for chunk in connection.read(response):
                file.write(chunk)
                if file.tell() > MOST_BYTES:
                    raise connection.RefusedError(f"more bytes came than the {MOST_BYTES} that are read")
                progress.show(file.tell(), total)
    file.flush()
    if total is not None and file.tell() != total:
        raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")


def _continues(headers: http.client.HTTPMessage, have: int, version: str) -> bool:
    """Returns True if a partial response begins at byte `have` of the same version of the file."""
    return headers.get("Content-Range", "").startswith(f"bytes {have}-") and _version(headers) in (version, "")


def _version(headers: http.client.HTTPMessage) -> str:
    """Returns the header that identifies this version of the file, or "" if the server sends none that is reliable."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # a weak tag does not promise the same bytes
        return etag
    return headers.get("Last-Modified", "")


def _version_path(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _restart(file: IO[bytes], part: Path) -> None:
    """Empties the file, and forgets its version."""
    file.seek(0)
    file.truncate()
    _version_path(part).unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    match error:
        case urllib.error.HTTPError():
            return f"the server answered {error.code} {error.reason}"
        case urllib.error.URLError():
            return str(error.reason)
    return str(error)
