"""What every data source gives: an image with its boxes."""

import dataclasses
from typing import Any, Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Example:
    """One image as a person sees it, with the boxes to learn."""

    image: np.ndarray  # [h, w, 3] uint8, BGR
    boxes_xyxy: np.ndarray  # [n, 4] float32, pixels of `image`
    labels: np.ndarray  # [n] int32, class ids in [0, C)
    image_id: int | str


class Source(Protocol):
    """A data set by random access. `source[i]` is a pure function of i and safe to call from several threads.

    An image that cannot be read is an images.ImageError, in `num_boxes` too.
    """

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def image_id(self, index: int) -> int | str:
        """The id of image `index`, without decoding it."""

    def num_boxes(self, index: int) -> int:
        """How many boxes to learn image `index` has, without decoding it."""

    def ground_truth(self) -> dict[str, Any]:
        """The split in COCO's annotation format, crowds included; category k of `categories` is label k."""


class SourceView:
    """A source seen through another object; subclasses say what is different."""

    def __init__(self, source: Source):
        self.class_names = source.class_names
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return self._source[index]

    def image_id(self, index: int) -> int | str:
        return self._source.image_id(index)

    def num_boxes(self, index: int) -> int:
        return self._source.num_boxes(index)

    def ground_truth(self) -> dict[str, Any]:
        return self._source.ground_truth()
