"""Where a program writes its results: a local path, or a temporary folder whose files are uploaded to a bucket."""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from yolox_jax import storage
from yolox_jax.errors import UserError, writing
from yolox_jax.storage import BucketPath, Patience

_FIRST_CHECK = Patience(20, on_wait=print)
_UPLOAD = Patience(300, on_wait=print)


@contextlib.contextmanager
def output_file(path: str | None) -> Iterator[Path | None]:
    """Gives the local path of a result, and makes its folder, so that a wrong path is an error before the work.

    A file for a bucket is uploaded when the block has ended, or was left by an error. Without a path, gives None.

    Raises:
      UserError: the folder cannot be made, nothing can be written in it, or the path is a folder itself.
    """
    location = storage.resolve(path) if path else None
    if isinstance(location, BucketPath):
        with _uploaded(location.parent) as folder:
            yield folder / location.name
        return
    if location:
        with writing(location.parent):
            location.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=location.parent).close()
        if location.is_dir():
            raise UserError(f"{location} is a folder, and a file is to be written", "add the name of a file")
    yield location


@contextlib.contextmanager
def output_folder(path: str | None) -> Iterator[Path | None]:
    """As `output_file`, for a folder. A local one is not made."""
    location = storage.resolve(path) if path else None
    if isinstance(location, BucketPath):
        with _uploaded(location) as folder:
            yield folder
    else:
        yield location


@contextlib.contextmanager
def _uploaded(target: BucketPath) -> Iterator[Path]:
    """Gives an empty folder, whose files are in `target` afterwards."""
    storage.check_writable(target, _FIRST_CHECK)
    folder = Path(tempfile.mkdtemp(prefix="yolox_jax_"))
    try:
        yield folder
    except BaseException:
        try:
            _upload(folder, target)
        except UserError as error:  # the program ends by the first error, not by this one
            print(f"warning: {error}", file=sys.stderr)
        raise
    _upload(folder, target)


def _upload(folder: Path, target: BucketPath) -> None:
    try:
        storage.in_parallel(
            lambda name: storage.upload(folder / name, target / name, _UPLOAD), storage.list_files(folder)
        )
    except UserError as error:
        raise UserError(error.what, f"{error.advice}; the results are in {folder}") from error
    shutil.rmtree(folder)
