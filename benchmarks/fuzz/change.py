"""A change of an input, and the kinds of inputs, which are changed, read and judged."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of an input."""

    text: str  # which file, and what was changed
    is_harmless: bool = False  # the program must read the same as before: an error would be wrong
    names: tuple[str, ...] = ()  # what a message may call the place by, besides the path of a file
    expected: Any = None  # what the change itself knows of the right result, for `Kind.judge`


@dataclasses.dataclass(frozen=True)
class Judged:
    """A result was judged against what an independent reader makes of the same files."""

    wrong: str = ""  # what is wrong with it; empty if it is right
    is_unknowable: bool = False  # other pixels of a format without checksums: nobody can tell


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of input. `read` does what a program does; the other functions run without limits."""

    name: str
    make: Callable[[Path], None]  # writes the input that is changed into an empty folder
    change: Callable[[Path, random.Random], Change]  # changes the copy in a folder
    read: Callable[[Path], Any]
    judge: Callable[[Path, Change, Any], Judged]  # of the changed folder, and of what `read` returned
