"""UserError: programs show it as one message without a traceback; every other exception keeps its traceback."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

_SHOWN = 500  # characters at each end of a long line


def short_lines(text: str) -> str:
    """Cuts the middle out of the long lines of a message: a name in a damaged file may have a million characters."""
    lines = (line if len(line) <= 2 * _SHOWN else f"{line[:_SHOWN]} … {line[-_SHOWN:]}" for line in text.split("\n"))
    return "\n".join(lines)


class UserError(ValueError):
    """A mistake that the user can correct. Its message says what was found, where, and what to do.

    `what` names the file, record or config field and what is wrong with it; `advice` says what to do.
    """

    def __init__(self, what: str, advice: str):
        super().__init__(what, advice)  # both, so that a worker process can pickle the error
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return short_lines(f"{self.what}: {self.advice}")

    def _render_traceback_(self) -> list[str]:
        """Returns what a notebook shows, which asks for this: the message alone."""
        return [f"{type(self).__name__}: {self}"]


class NotFoundError(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""


def too_many_files(error: BaseException | None) -> UserError | None:
    """Returns a UserError if this one, or one that led to it, is that no more files can be opened."""
    while error is not None and not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    return UserError(f"no more files can be opened ({error})", "raise the limit, with ulimit -n 4096 for example")


@contextlib.contextmanager
def writing(path: Path | str, advice: str = "choose another path, or free some space") -> Iterator[None]:
    """Turns an OSError of the block, which must only write that file or folder, into a UserError that names `path`."""
    try:
        yield
    except UserError:  # NotFoundError is an OSError too
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error})", advice) from error
