"""Small sources for tests: copies of one picture with the given boxes."""

import numpy as np

from yolox_jax.types import Example


class MadeSource:
    """`length` copies of one picture with the same boxes, the k-th of which has label k."""

    class_names = ("thing",)
    problems = ()

    def __init__(self, image, boxes_xyxy, length=1):
        self.image = image
        self.boxes_xyxy = np.array(boxes_xyxy, np.float32).reshape(-1, 4)
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        labels = np.arange(len(self.boxes_xyxy), dtype=np.int32)
        return Example(self.image.copy(), self.boxes_xyxy, labels, self.image_id(index))

    def image_id(self, index):
        return f"image {index}"

    def num_boxes(self, index):
        return len(self.boxes_xyxy)

    def labels(self, index):
        return np.arange(len(self.boxes_xyxy), dtype=np.int32)

    def encoded(self, index):
        return None

    def ground_truth(self):
        raise NotImplementedError


class CountingSource(MadeSource):
    """Records the indices that are read."""

    def __init__(self, image, boxes_xyxy, length=1):
        super().__init__(image, boxes_xyxy, length)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def striped():
    """An image [24, 32, 3] without two equal columns."""
    return np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None] * 7, (24, 32, 3)).copy()
