"""Notes what a reader must never do: run code of its input, start programs, use the network, write elsewhere.

Python reports these to audit hooks. What C and C++ libraries do by themselves is not seen. Reading is allowed
anywhere: the files that a data set names may be on another disk.
"""

import os
import sys
from pathlib import Path
from typing import Any

_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Collects what was done against the rules while it is `on`. Python cannot remove it: for a process of its own."""

    def __init__(self, may_write: Path) -> None:
        self.found: list[str] = []
        self.is_on = False
        self._may_write = os.path.realpath(may_write)
        sys.addaudithook(self._note)

    def modules_from(self, folder: Path) -> list[str]:
        """Returns the modules that were imported from a folder."""
        files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
        return sorted(name for name, file in files.items() if file and _is_in(file, os.path.realpath(folder)))

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in _STARTS or event in _NETWORK:
            self._add(event, arguments)
        elif event == "open":
            path, _, flags = arguments
            if flags & _WRITING and not isinstance(path, int):
                self._check_path(event, path)
        elif event in _CHANGES:
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                self._check_path(event, path)

    def _check_path(self, event: str, path: Any) -> None:
        self.is_on = False  # os.path has events of its own
        if not isinstance(path, int) and os.fsdecode(path) != os.devnull:
            folder = os.path.realpath(os.path.dirname(os.fsdecode(path)) or ".")
            if not _is_in(os.path.join(folder, "x"), self._may_write):
                self._add(event, (path,))
        self.is_on = True

    def _add(self, event: str, arguments: tuple[Any, ...]) -> None:
        self.found.append(f"{event} {repr(arguments)[:200]}")


def _is_in(path: str, folder: str) -> bool:
    return os.path.realpath(path).startswith(folder + os.sep)
