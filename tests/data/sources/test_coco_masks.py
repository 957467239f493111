"""Boxes of run-length encoded masks equal those of pycocotools; anything else has no box."""

import itertools

import numpy as np
import pytest
from pycocotools import mask as pycocotools_mask

from yolox_jax.data.sources.coco_masks import bounding_box


def test_boxes_of_masks_are_those_of_pycocotools_compressed_or_not():
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 40, 2).tolist()
        pixels = np.asfortranarray(rng.random((height, width)) < rng.random() / 3, np.uint8)
        pixels[rng.integers(height), rng.integers(width)] = 1
        encoded = pycocotools_mask.encode(pixels)
        expected = tuple(pycocotools_mask.toBbox(encoded).tolist())
        groups = [(value, len(list(group))) for value, group in itertools.groupby(pixels.ravel(order="F"))]
        runs = [0] * int(groups[0][0]) + [length for _, length in groups]  # they begin with zeros
        for counts in (encoded["counts"].decode(), runs):
            assert bounding_box({"size": [height, width], "counts": counts}) == expected


@pytest.mark.parametrize(
    "segmentation",
    [
        *(None, [], {}, "mask", [[1, 2]], [[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5, "6"]], [[1, 2, 3, 4, 5, float("nan")]]),
        *({"size": [2, 2], "counts": counts} for counts in (None, 7, [], [4], [1, 9], [1, -1], "\n", "o", "ooo")),
        *({"size": size, "counts": [0, 1]} for size in (None, [2], [0, 2], ["2", 2], [2.5, 2])),
        {"size": [2, 2], "counts": "o" * 1000},
    ],
)
def test_what_is_no_segmentation_has_no_box(segmentation):
    assert bounding_box(segmentation) is None
