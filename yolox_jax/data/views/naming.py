"""Errors that name the image they are about."""

import contextlib
from collections.abc import Iterator

from yolox_jax.data.views.source_view import SourceView
from yolox_jax.types import Example, Source


class SampleError(RuntimeError):
    """An image could not be made into a sample. Names the image; its cause is the error itself."""


class NamingSource(SourceView):
    """So that the image that fails is named, not the one it was to be mixed with."""

    def __getitem__(self, index: int) -> Example:
        with naming_the_image(self._source, index):
            return super().__getitem__(index)

    def num_boxes(self, index: int) -> int:
        with naming_the_image(self._source, index):
            return super().num_boxes(index)


@contextlib.contextmanager
def naming_the_image(source: Source, index: int) -> Iterator[None]:
    try:
        yield
    except SampleError:
        raise
    except Exception as error:
        raise SampleError(f"image {source.image_id(index)!r} (index {index} of the source): {error}") from error
