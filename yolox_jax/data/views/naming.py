"""Names the image in errors that are raised while it is read."""

import contextlib
from collections.abc import Iterator

import numpy as np

from yolox_jax.data.views.source_view import SourceView
from yolox_jax.errors import UserError
from yolox_jax.types import Example, Source


class SampleError(UserError):
    """An image cannot be used. `what` names the image, followed by the `what` of the original error."""


class NamingSource(SourceView):
    """A source whose errors name the image that was read, even if it was read as a partner of another image."""

    def __getitem__(self, index: int) -> Example:
        with naming(self._source, index, "reading"):
            return super().__getitem__(index)

    def num_boxes(self, index: int) -> int:
        with naming(self._source, index, "reading"):
            return super().num_boxes(index)

    def labels(self, index: int) -> np.ndarray:
        with naming(self._source, index, "reading"):
            return super().labels(index)


@contextlib.contextmanager
def naming(source: Source, index: int, activity: str) -> Iterator[None]:
    """Turns a UserError of the block into a SampleError; adds a note to any other error, which keeps its type.

    Both keep the name outside a worker process, which pickles the error and drops its cause.
    """
    try:
        yield
    except SampleError:
        raise
    except UserError as error:
        raise SampleError(f"{_name(source, index)}: {error.what}", error.advice) from error
    except Exception as error:
        error.add_note(f"while {activity} {_name(source, index)}")
        raise


def _name(source: Source, index: int) -> str:
    return f"image {source.image_id(index)!r} (index {index} of the source)"
