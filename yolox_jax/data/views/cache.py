"""Views that fit images to the input size and cache the most recently used ones."""

import collections
import dataclasses
import threading
from typing import Any

import numpy as np

from yolox_jax.augment import geometry
from yolox_jax.data.views.source_view import SourceView
from yolox_jax.types import Example, Source


class FittedSource(SourceView):
    """Resizes each image, with its boxes, to the largest scale that fits `size_hw`.

    Every use of a training image starts with this step, in a mosaic, in mixup or alone, so the cache keeps its result.
    """

    def __init__(self, source: Source, size_hw: tuple[int, int]):
        super().__init__(source)
        self._size_hw = size_hw

    def __getitem__(self, index: int) -> Example:
        example = super().__getitem__(index)
        image, boxes_xyxy = example.image, example.boxes_xyxy.astype(np.float64)
        # Twice, as in the reference: if rounding leaves the first result a pixel short, the second pass corrects it.
        for _ in range(2):
            boxes_xyxy = boxes_xyxy * geometry.fit_ratio(image.shape[:2], self._size_hw)
            image = geometry.fit(image, self._size_hw)
        return dataclasses.replace(example, image=image, boxes_xyxy=boxes_xyxy.astype(np.float32))


class CachedSource(SourceView):
    """Keeps the most recently used examples, up to `max_bytes` of pixels.

    Several samples use the same example, so its image is read-only.
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
        example = super().__getitem__(index)  # two threads may decode the same image at once: rare and harmless
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
        return CachedSource, (self._source, self._max_bytes)  # a worker process starts with an empty cache
