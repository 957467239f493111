"""Finds files by their names, listing each folder once: on a network file system, a check per file is slow.

Names are the same if they differ only in the form of their Unicode characters (é as one character or as two), in upper
and lower case, in separators (a\\b) or in escapes of a web address (a%20b): annotations often come from another system.
"""

import errno
import os
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterable, Sequence

from yolox_jax.errors import UserError


def same_name(name: str) -> str:
    """Returns what all spellings of a name have in common, except for separators and escapes."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Folders:
    """The names in each folder, as they were when the folder was first listed."""

    def __init__(self) -> None:
        self._names_in: dict[str, frozenset[str]] = {}
        self._spellings: dict[str, dict[str, list[str]]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """Returns the names in a folder, none if there is no such folder."""
        if folder not in self._names_in:
            self._names_in[folder] = _names(folder)
        return self._names_in[folder]

    def have(self, path: str) -> bool:
        """Returns True if there is a file or folder of exactly this name."""
        folder, name = os.path.split(path)
        return name in self.names(folder)

    def respelled(self, folder: str, path: str) -> str | None:
        """Returns the one file whose path below `folder` is another spelling of `path`; None if none or several are."""
        for spelling in dict.fromkeys((path, path.replace("\\", "/"), urllib.parse.unquote(path.replace("\\", "/")))):
            whole = os.path.normpath(os.path.join(folder, spelling))
            start = os.path.normpath(folder)
            if not whole.startswith(os.path.join(start, "")):
                start = os.path.dirname(whole)
            found: str | None = start
            for part in os.path.relpath(whole, start).split(os.sep):
                found = found and self._entry(found, part)
            if found is not None:
                return found
        return None

    def with_stem(self, folder: str, stem: str) -> list[str]:
        """Returns the names in a folder that are a spelling of `stem` and any ending, sorted."""
        if folder not in self._stems:
            self._stems[folder] = _grouped(self.names(folder), lambda name: same_name(os.path.splitext(name)[0]))
        return self._stems[folder].get(same_name(stem), [])

    def _entry(self, folder: str, name: str) -> str | None:
        if name in self.names(folder):
            return os.path.join(folder, name)
        if folder not in self._spellings:
            self._spellings[folder] = _grouped(self.names(folder), same_name)
        spellings = self._spellings[folder].get(same_name(name), [])
        return os.path.join(folder, spellings[0]) if len(spellings) == 1 else None


def find_each(folders: Folders, folder: str, paths: Sequence[str]) -> list[str | None]:
    """Finds the file of each path below `folder`; None for a path that has none.

    A file that has exactly the name of one path is not found by another spelling, and no file by two other spellings.
    """
    file_of: dict[str, str | None] = {}
    for path in paths:
        whole = os.path.join(folder, path)
        if folders.have(whole):
            file_of[path] = whole
    taken = set(file_of.values())
    for path in paths:
        if path not in file_of:
            respelled = folders.respelled(folder, path)
            file_of[path] = None if respelled in taken else respelled
            taken.add(respelled)
    return [file_of[path] for path in paths]


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(key(name), []).append(name)
    return groups


def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return frozenset()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return frozenset()
        raise UserError(f"{folder} cannot be listed ({error.strerror or error})", "check its permissions") from error
