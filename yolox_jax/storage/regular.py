"""Reads local files that others may have put there: only regular ones of a limited size.

A pipe would hang, and /dev/zero never end.
"""

import errno
import hashlib
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class RefusedFileError(OSError):
    """What is at a path is no regular file, too large, or stands for another file. `strerror` says which."""


def read_regular(path: str | Path, most_mb: int | None = None, limit: str = "the most that is read") -> bytes:
    """Reads a whole local file of at most `most_mb` MiB, if given; `limit` names that number in the message.

    Raises:
      OSError: it cannot be read, or is refused (`RefusedFileError`).
    """
    try:
        _check_regular(os.stat(path), path)  # before opening, which some devices notice
        # Non-blocking, since the path may have become a pipe meanwhile.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a null character, or a lone surrogate
        raise RefusedFileError(errno.EINVAL, f"its path is no file name: {error}", str(path)) from error
    with open(descriptor, "rb") as stream:
        state = os.fstat(descriptor)
        _check_regular(state, path)
        check_size(state.st_size, path, most_mb, limit)
        content = stream.read(state.st_size)
    _check_no_pointer(content, path)
    return content


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a local file, as hexadecimal digits. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_no_pointer(path: str | Path) -> None:
    """Raises a RefusedFileError if a local file, which something else will read, is a pointer of Git LFS."""
    with open(path, "rb") as stream:
        _check_no_pointer(stream.read(len(_LFS_POINTER)), path)


def _check_no_pointer(content: bytes, path: str | Path) -> None:
    if content.startswith(_LFS_POINTER):
        raise RefusedFileError(errno.EINVAL, "it is a pointer of Git LFS; git lfs pull gets the file", str(path))


def check_size(num_bytes: int, path: object, most_mb: int | None, limit: str = "the most that is read") -> None:
    """Raises a RefusedFileError if a file is larger than `most_mb` MiB."""
    if most_mb is not None and num_bytes > most_mb << 20:
        size = f"it has {num_bytes / 2**20:.0f} MiB, {limit} is {most_mb}"
        raise RefusedFileError(errno.EFBIG, size, str(path))


def _check_regular(state: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "something else")
        raise RefusedFileError(errno.EINVAL, f"it is {kind}, not a file", str(path))
