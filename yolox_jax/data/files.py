"""Reads files of a data set: only regular ones of a limited size, since a pipe would hang and /dev/zero never end."""

import codecs
import locale
from pathlib import Path

from yolox_jax import storage
from yolox_jax.errors import too_many_files

MAX_MB = 2048  # config.data.max_file_mb of configs/base.py, for what has no config

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_bytes(path: str | Path, max_mb: int = MAX_MB) -> bytes:
    """Reads a whole file.

    Raises:
      OSError: it cannot be read, or is refused (`RefusedFileError`).
      UserError: this process cannot open more files, which is no fault of this one.
    """
    try:
        return storage.read_regular(path, max_mb, "config.data.max_file_mb")
    except OSError as error:
        if (no_more := too_many_files(error)) is not None:
            raise no_more from error
        raise


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
