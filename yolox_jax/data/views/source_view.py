"""The base class of all views: a source that wraps another one."""

from typing import Any

import numpy as np

from yolox_jax.types import Example, Problem, Source


class SourceView:
    """Passes everything through to the wrapped source. Subclasses override what they change."""

    def __init__(self, source: Source):
        self.class_names = source.class_names
        self._source = source

    @property
    def problems(self) -> list[Problem]:
        return self._source.problems

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return self._source[index]

    def image_id(self, index: int) -> int | str:
        return self._source.image_id(index)

    def num_boxes(self, index: int) -> int:
        return self._source.num_boxes(index)

    def labels(self, index: int) -> np.ndarray:
        return self._source.labels(index)

    def encoded(self, index: int) -> bytes | None:
        return self._source.encoded(index)

    def ground_truth(self) -> dict[str, Any]:
        return self._source.ground_truth()
