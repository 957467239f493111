"""Whole files from a bucket to the disk, in pieces that an interruption keeps, and from the disk to a bucket."""

from collections.abc import Callable
from pathlib import Path
from typing import IO

from yolox_jax.errors import writing
from yolox_jax.storage.client import Patience, StorageError, send
from yolox_jax.storage.files import Entry, entry
from yolox_jax.storage.locations import BucketPath

_RANGE_BYTES = 16 * 2**20  # what is lost if the connection breaks


def download(
    path: BucketPath,
    file: Path,
    on_bytes: Callable[[int], object] = lambda num_bytes: None,
    patience: Patience = Patience(),
    known: Entry | None = None,
) -> Entry:
    """Copies a file from a bucket, and returns its size and version.

    `file` gets its name when it is whole; until then there are NAME.part and NAME.part.version beside it. A download
    that was interrupted resumes if the bucket still has the same version.

    Args:
      path: the file in the bucket.
      file: where to put it; its folder is made.
      on_bytes: called with the number of bytes that came, or that were there already.
      patience: as for every request.
      known: what a listing said of the file: spares a small file all requests but one.

    Raises:
      NotFoundError, StorageError, UnreachableError: as `client.request`, or not as many bytes came as the file has.
      UserError: the local file cannot be written.
    """
    part = file.with_name(f"{file.name}.part")
    version_file = part.with_name(f"{part.name}.version")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        wanted = known or entry(path, patience)
        while True:
            tag = f"{wanted.size} {wanted.version}"
            if not version_file.exists() or version_file.read_text() != tag:
                part.unlink(missing_ok=True)
                version_file.write_text(tag)
            with part.open("ab") as out:
                start = out.tell()
                is_one_request = start == 0 and wanted.size <= _RANGE_BYTES
                on_bytes(start)
                _fetch_ranges(path, out, wanted.size, on_bytes, patience)
                have = out.tell()
            # One request gives one version. If that is newer than the listing's, the next look at the listing shows it.
            is_whole = have == wanted.size and (is_one_request or entry(path, patience) == wanted)
            if is_whole:
                part.replace(file)
                version_file.unlink()
                return wanted
            on_bytes(-have)
            part.unlink()
            now = entry(path, patience)
            if now == wanted and start == 0:  # not replaced meanwhile: a store that unpacks gzip as it sends
                raise StorageError(
                    f"{path} has {now.size} bytes, but {have} came", "store it without a content encoding"
                )
            wanted = now


def _fetch_ranges(
    path: BucketPath, out: IO[bytes], size: int, on_bytes: Callable[[int], object], patience: Patience
) -> None:
    while (start := out.tell()) < size:
        end = min(start + _RANGE_BYTES, size)
        num_bytes = end - start
        try:
            args = str(path), "cat_file", path.key
            chunk = send(*args, start=start, end=end, num_bytes=num_bytes, patience=patience)
        except StorageError as error:
            if error.status == 416:  # no such range: it became shorter
                return
            raise
        out.write(chunk)
        on_bytes(len(chunk))
        if len(chunk) != num_bytes:
            return


def upload(file: Path, path: BucketPath, patience: Patience = Patience()) -> Entry:
    """Copies a local file to a bucket, whole, and checks its size there.

    Raises:
      StorageError, UnreachableError: as `client.request`.
    """
    size = file.stat().st_size
    send(str(path), "put_file", str(file), path.key, num_bytes=size, patience=patience)
    found = entry(path, patience)
    if found.size != size:
        raise StorageError(
            f"{path} has {found.size} bytes after {size} were written", "see who else writes there, and try again"
        )
    return found
