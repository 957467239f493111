"""Images at the size of the input, and the ones read lately kept."""

import collections
import dataclasses
import threading
from typing import Any

import numpy as np

from yolox_jax.augment import geometry
from yolox_jax.data.views.source_view import SourceView
from yolox_jax.types import Example, Source


class FittedSource(SourceView):
    """A source whose images are at the largest scale that fits `size_hw`, boxes with them.

    Every use of a training image begins so, in a mosaic, in mixup or plain: done once, it need not be done again.
    """

    def __init__(self, source: Source, size_hw: tuple[int, int]):
        super().__init__(source)
        self._size_hw = size_hw

    def __getitem__(self, index: int) -> Example:
        example = super().__getitem__(index)
        image, boxes_xyxy = example.image, example.boxes_xyxy.astype(np.float64)
        # Twice, as in the reference: where rounding leaves the first a pixel short, the second makes it good.
        for _ in range(2):
            boxes_xyxy = boxes_xyxy * geometry.fit_ratio(image.shape[:2], self._size_hw)
            image = geometry.fit(image, self._size_hw)
        return dataclasses.replace(example, image=image, boxes_xyxy=boxes_xyxy.astype(np.float32))


class CachedSource(SourceView):
    """A source that remembers its latest examples, up to `max_bytes` of pixels.

    The examples are shared between samples: their images are made read-only.
    """

    def __init__(self, source: Source, max_bytes: int):
        super().__init__(source)
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._examples: collections.OrderedDict[int, Example] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> Example:
        with self._lock:
            if index in self._examples:
                self._examples.move_to_end(index)
                return self._examples[index]
        example = super().__getitem__(index)  # two threads may decode the same image: rare, and both are right
        example.image.flags.writeable = False
        with self._lock:
            if index not in self._examples:
                self._examples[index] = example
                self._num_bytes += example.image.nbytes
            while self._num_bytes > self._max_bytes:
                _, oldest = self._examples.popitem(last=False)
                self._num_bytes -= oldest.image.nbytes
        return example

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedSource, (self._source, self._max_bytes)  # a worker process begins with an empty one
