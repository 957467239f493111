"""Views of some images of a source: any selection of its indices, and a fixed random fraction."""

from typing import Any

import numpy as np

from yolox_jax.data.views.source_view import SourceView
from yolox_jax.errors import UserError
from yolox_jax.types import Example, Source


class SelectedSource(SourceView):
    """The images of a source at the given indices, which may repeat; the ground truth is that of the source."""

    def __init__(self, source: Source, index: np.ndarray):
        super().__init__(source)
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Example:
        return self._source[int(self._index[index])]

    def image_id(self, index: int) -> int | str:
        return self._source.image_id(int(self._index[index]))

    def num_boxes(self, index: int) -> int:
        return self._source.num_boxes(int(self._index[index]))

    def labels(self, index: int) -> np.ndarray:
        return self._source.labels(int(self._index[index]))

    def encoded(self, index: int) -> bytes | None:
        return self._source.encoded(int(self._index[index]))


class FractionSource(SelectedSource):
    """A random fraction of the images, at least one, in the source's order.

    Which ones depends on their number alone, not on the run's seed; a smaller fraction is part of a larger one.
    """

    def __init__(self, source: Source, fraction: float):
        if not 0 < fraction <= 1:
            raise UserError(f"config.data.fraction is {fraction}", "give a share of the images, above 0, up to 1")
        shuffled = np.random.Generator(np.random.Philox(0)).permutation(len(source))
        super().__init__(source, np.sort(shuffled[: max(1, round(fraction * len(source)))]))

    def ground_truth(self) -> dict[str, Any]:
        """Returns the part of the source's that belongs to these images."""
        truth = self._source.ground_truth()
        ids = {self.image_id(index) for index in range(len(self))}
        return truth | {
            "images": [image for image in truth["images"] if image["id"] in ids],
            "annotations": [each for each in truth["annotations"] if each["image_id"] in ids],
        }
