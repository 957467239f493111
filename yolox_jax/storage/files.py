"""Single files and folders: reads, writes, lists and moves them, local or in a bucket."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from yolox_jax.errors import NotFoundError, writing
from yolox_jax.storage.client import Patience, filesystem, request, send
from yolox_jax.storage.locations import BucketPath, Location
from yolox_jax.storage.regular import check_size, read_regular

T = TypeVar("T")

_THREADS = 16


class Entry(NamedTuple):
    """One file of a listing."""

    size: int
    version: str  # differs if the content was replaced; "" if the store has no such tag


def read_bytes(path: Location, patience: Patience = Patience(), most_mb: int | None = None) -> bytes:
    """Reads a whole file, of at most `most_mb` MiB if that is given.

    Raises:
      NotFoundError, StorageError, UnreachableError: as `client.request`.
      OSError: a local file cannot be read, or is no regular file; or the file is too large (`RefusedFileError`).
    """
    if isinstance(path, Path):
        with _found(path):
            return read_regular(path, most_mb)
    size = entry(path, patience).size
    check_size(size, path, most_mb)
    return send(str(path), "cat_file", path.key, num_bytes=size, patience=patience)


def read_versioned(path: Location, patience: Patience = Patience()) -> tuple[bytes, str]:
    """Reads a whole file, with the version that this content has: what `replace` asks for."""
    while True:
        version = entry(path, patience).version
        content = read_bytes(path, patience)
        if entry(path, patience).version == version:
            return content, version


def write_bytes(path: Location, data: bytes, patience: Patience = Patience(), *, sync: bool = True) -> None:
    """Writes a whole file; nobody sees a part of it. Makes the folder if it is local.

    A link or a device, such as /dev/stdout, is written in place. Without `sync`, which waits for the disk, a local file
    may be lost if the machine fails.
    """
    if isinstance(path, BucketPath):
        send(str(path), "pipe_file", path.key, data, num_bytes=len(data), patience=patience)
        return
    # A name may have 255 bytes, and each character up to four.
    unfinished = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:8]}.unfinished")
    with writing(path):
        if path.is_symlink() or path.is_char_device() or path.is_fifo():
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(unfinished, data, sync)
            _rename(unfinished, path, data)
        finally:
            unfinished.unlink(missing_ok=True)


def replace_local(path: Path, data: bytes) -> None:
    """Replaces a file of which there is one writer. If the process dies meanwhile, the old content or the new is there.

    Raises:
      OSError: the disk is full or read-only.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    _write(unfinished, data, sync=True)
    unfinished.replace(path)


def _write(path: Path, data: bytes, sync: bool) -> None:
    with path.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _rename(unfinished: Path, path: Path, data: bytes) -> None:
    """Renames a complete file. On a mount that cannot rename, writes in place; what only grew is appended."""
    try:
        unfinished.replace(path)
    except OSError:
        before = path.read_bytes() if path.exists() else b""
        grows = bool(before) and data.startswith(before)
        with path.open("ab" if grows else "wb") as file:
            file.write(data[len(before) if grows else 0 :])


def create(path: Location, data: bytes, patience: Patience = Patience()) -> str | None:
    """Writes a file only if there is none. Returns its version, or None if there is one already.

    A repeated request may find the file that its first try wrote: content that nobody else writes (a random name in
    it) is recognized as ours.
    """
    if isinstance(path, BucketPath):
        return _write_if(path, data, None, patience)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            return None
    return entry(path).version


def replace(path: Location, data: bytes, version: str, patience: Patience = Patience()) -> str | None:
    """Writes a file only if it still has this version. Returns the new version, or None if it has changed or is gone.

    storage/__init__.py says where this is one atomic request. As with `create`, our own content is recognized.
    """
    if isinstance(path, BucketPath) and path.scheme in ("gs", "s3"):
        return _write_if(path, data, version, patience)
    with contextlib.suppress(NotFoundError):
        if entry(path, patience).version == version:
            write_bytes(path, data, patience)
            return entry(path, patience).version
    return None


def _write_if(path: BucketPath, data: bytes, version: str | None, patience: Patience) -> str | None:
    """As `create` (version None) and `replace`."""

    def call() -> str:
        store = filesystem(path.scheme)
        bucket, name = path.parts[0], "/".join(path.parts[1:])
        if path.scheme == "gs":
            address = f"{store.base.removesuffix('/storage/v1/')}/upload/storage/v1/b/{{}}/o"
            query = {"uploadType": "media", "name": name, "ifGenerationMatch": version or "0"}
            return str(store.call("POST", address, bucket, data=data, json_out=True, **query)["generation"])
        if path.scheme == "s3":
            condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
            try:
                return str(store.call_s3("put_object", Bucket=bucket, Key=name, Body=data, **condition)["ETag"])
            except OSError as error:
                answer = getattr(error.__cause__, "response", None) or {}
                if answer.get("Error", {}).get("Code") == "PreconditionFailed":
                    raise FileExistsError(str(path)) from error
                raise
        store.pipe_file(path.key, data, mode="create")
        return entry(path, patience).version

    try:
        return request(str(path), call, patience)
    except (FileExistsError, NotFoundError) as error:
        if version is None and isinstance(error, NotFoundError):
            raise  # no such bucket
    with contextlib.suppress(NotFoundError):
        content, found = read_versioned(path, patience)
        if content == data:
            return found
    return None


def entry(path: Location, patience: Patience = Patience()) -> Entry:
    """Returns the size and version of one file.

    Raises:
      NotFoundError: there is no such file; a folder is none.
    """
    if isinstance(path, Path):
        with _found(path):
            if path.is_dir():
                raise NotFoundError(f"{path} is a folder", "name a file")
            return _local_entry(path)
    found = send(str(path), "info", path.key, patience=patience)
    if found["type"] != "file":
        raise NotFoundError(f"{path} is a folder", "name a file")
    return _entry(found)


def exists(path: Location, patience: Patience = Patience()) -> bool:
    """True if there is a file or a folder of this name."""
    if isinstance(path, Path):
        return path.exists()
    try:
        send(str(path), "info", path.key, patience=patience)
    except NotFoundError:
        return False
    return True


def is_folder(path: Location, patience: Patience = Patience()) -> bool:
    """True if this is a folder; in a bucket, one with files in it."""
    if isinstance(path, Path):
        return path.is_dir()
    try:
        return send(str(path), "info", path.key, patience=patience)["type"] == "directory"
    except NotFoundError:
        return False


def list_names(folder: Location, patience: Patience = Patience()) -> list[str]:
    """Returns the names of the files and folders that are directly in a folder, sorted; none if it does not exist."""
    if isinstance(folder, Path):
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    try:
        found = send(str(folder), "ls", folder.key, detail=False, patience=patience)
    except NotFoundError:
        return []
    prefix = "/".join(folder.parts) + "/"
    names = (name.strip("/") for name in found)
    return sorted({name.removeprefix(prefix) for name in names if name.startswith(prefix)})


def list_files(folder: Location, patience: Patience = Patience()) -> dict[str, Entry]:
    """Returns all files below a folder by their relative names; none if it does not exist."""
    if isinstance(folder, Path):
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {path.relative_to(folder).as_posix(): _local_entry(path) for path in files}
    try:
        found = send(str(folder), "find", folder.key, detail=True, num_bytes=10**9, patience=patience)
    except NotFoundError:
        return {}
    prefix = "/".join(folder.parts) + "/"
    listed = {}
    for name, info in found.items():
        if name.lstrip("/").startswith(prefix) and info["type"] == "file" and not name.endswith("/"):
            listed[name.lstrip("/").removeprefix(prefix)] = _entry(info)
    return listed


def remove(path: Location, patience: Patience = Patience()) -> None:
    """Removes a file, if there is one."""
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(NotFoundError):
        send(str(path), "rm_file", path.key, patience=patience)


def remove_tree(folder: Location, patience: Patience = Patience()) -> None:
    """Removes a folder with everything in it, if there is one."""
    if isinstance(folder, Path):
        if folder.exists():
            shutil.rmtree(folder)
        return
    in_parallel(lambda name: remove(folder / name, patience), list_files(folder, patience))


def move(source: Location, target: Location, patience: Patience = Patience()) -> None:
    """Renames a file or a folder within one store. In a bucket every object is copied, then every source removed."""
    if isinstance(source, Path) and isinstance(target, Path):
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        return
    if not isinstance(source, BucketPath) or not isinstance(target, BucketPath) or source.scheme != target.scheme:
        raise ValueError(f"{source} and {target} are not in one store")
    files = list_files(source, patience)
    pairs = [(source / name, target / name, found.size) for name, found in files.items()]
    pairs = pairs or [(source, target, entry(source, patience).size)]

    def copy(pair: tuple[BucketPath, BucketPath, int]) -> None:
        old, new, size = pair
        send(str(old), "cp_file", old.key, new.key, num_bytes=size, patience=patience)

    in_parallel(copy, pairs)
    in_parallel(lambda pair: remove(pair[0], patience), pairs)


def check_writable(folder: Location, patience: Patience = Patience(10)) -> None:
    """Writes and removes a small file in a folder, so that a folder that cannot be written is known before the work.

    Raises:
      UserError: it cannot be written.
    """
    probe = folder / f".yolox_jax_write_check_{uuid.uuid4().hex[:8]}"
    write_bytes(probe, b"", patience)
    remove(probe, patience)


def in_parallel(function: Callable[[T], object], items: Iterable[T], threads: int = _THREADS) -> None:
    """Calls `function` for every item in threads; after a failure starts no further one, and raises the first."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            for future in [pool.submit(function, item) for item in items]:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextlib.contextmanager
def _found(path: Path) -> Any:
    try:
        yield
    except FileNotFoundError as error:
        if isinstance(error, NotFoundError):
            raise
        raise NotFoundError(f"there is no {path}", "check the path") from error


def _entry(info: dict[str, Any]) -> Entry:
    """From fsspec's description of a file."""
    tags = (
        info.get(name) for name in ("generation", "ETag", "etag", "mtime", "LastModified", "last_modified", "created")
    )
    return Entry(int(info["size"]), next((str(tag) for tag in tags if tag), ""))


def _local_entry(path: Path) -> Entry:
    stat = path.stat()
    return Entry(stat.st_size, f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}")
