"""Hears what image decoders write to standard error: libjpeg, libpng and libtiff report damage that they pass over so.

They write to the process's file descriptor, whatever thread they run in, so it is redirected to a file for a while.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator

_OPENCV_PREFIX = re.compile(r"^\[ ?\w+:\d+@[\d.]+\] global \S+ ")  # level, time, file and line
_MOST = 200  # characters


@contextlib.contextmanager
def heard() -> Iterator[Callable[[], str]]:
    """Redirects standard error; gives a function that returns the first line written since it was last called.

    No other thread may write while the function is called. Without a standard error, nothing is heard.
    """
    try:
        saved = os.dup(2)
    except OSError:
        yield lambda: ""
        return
    with tempfile.TemporaryFile() as file:

        def words() -> str:
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines()
            file.seek(0)  # the descriptor has the same position
            file.truncate()
            return _OPENCV_PREFIX.sub("", lines[0])[:_MOST] if lines else ""

        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            yield words
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
