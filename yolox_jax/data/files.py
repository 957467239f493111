"""Reads files of a data set: only regular ones of a limited size, since a pipe would hang and /dev/zero never end."""

import codecs
import errno
import locale
import os
import stat
from pathlib import Path

MAX_MB = 2048  # config.data.max_file_mb of configs/base.py, for what has no config

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class RefusedFileError(OSError):
    """What is at a path is not a regular file, or is too large. `strerror` says which."""


def read_bytes(path: str | Path, max_mb: int = MAX_MB) -> bytes:
    """Reads a whole file.

    Raises:
      OSError: it cannot be read, or is refused (`RefusedFileError`).
    """
    try:
        _check(os.stat(path), path, max_mb)  # before opening, which some devices notice
        # Non-blocking, since the path may have become a pipe meanwhile.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a null character, or a lone surrogate
        raise RefusedFileError(errno.EINVAL, f"its path is no file name: {error}", str(path)) from error
    with open(descriptor, "rb") as stream:
        state = os.fstat(descriptor)
        _check(state, path, max_mb)
        return stream.read(state.st_size)


def read_text(path: str | Path, max_mb: int = MAX_MB) -> str:
    """Reads a text file: UTF-8, UTF-16 or UTF-32 by its byte order mark, or else in the locale's encoding.

    Lines end in "\\n", whatever they end in in the file.

    Raises:
      OSError: as `read_bytes`.
      UnicodeDecodeError: the text is in another encoding.
    """
    data = read_bytes(path, max_mb)
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        local = locale.getpreferredencoding(False)
        if encoding != "utf-8" or codecs.lookup(local).name in ("ascii", "utf-8"):
            raise
        text = data.decode(local)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check(state: os.stat_result, path: str | Path, max_mb: int) -> None:
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "something else")
        raise RefusedFileError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    if state.st_size > max_mb << 20:
        size = f"it has {state.st_size / 2**20:.0f} MiB, config.data.max_file_mb is {max_mb}"
        raise RefusedFileError(errno.EFBIG, size, str(path))
