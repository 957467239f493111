"""A source seen through another object."""

from typing import Any

from yolox_jax.types import Example, Source


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
