"""Compares repeat-factor sampling with its formula."""

import numpy as np
import pytest

from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.views.repeat_factor import RepeatedSource
from yolox_jax.errors import UserError


class _Listed:
    """Images with these classes; image 0 may have a crowd of class 2."""

    class_names = ("common", "rare", "absent")
    problems = ()

    def __init__(self, classes, crowd=False):
        self._classes, self._crowd = classes, crowd

    def __len__(self):
        return len(self._classes)

    def __getitem__(self, index):
        return f"example {index}"

    def image_id(self, index):
        return f"image {index}"

    def num_boxes(self, index):
        return len(self._classes[index])

    def encoded(self, index):
        return None

    def ground_truth(self):
        pairs = [(i, label) for i, labels in enumerate(self._classes) for label in labels]
        annotations = [{"image_id": f"image {i}", "category_id": 10 * label, "iscrowd": 0} for i, label in pairs]
        if self._crowd:
            annotations.append({"image_id": "image 0", "category_id": 20, "iscrowd": 1})
        return {"annotations": annotations, "categories": [{"id": 10 * label} for label in range(3)]}


@pytest.mark.parametrize("crowd", [False, True])
def test_an_image_of_a_rare_class_is_repeated_as_often_as_the_formula_says(crowd):
    # Of 100 images two have the rare class: √(0.5 / 0.02) = 5 times each. One image has no box.
    classes = [[0]] * 40 + [[0, 1]] + [[0]] * 57 + [[1, 1]] + [[]]
    source = RepeatedSource(_Listed(classes, crowd), threshold=0.5)
    seen = [source.image_id(i) for i in range(len(source))]
    assert len(seen) == 98 + 2 * 5
    expected = {"image 0": 1, "image 40": 5, "image 98": 5, "image 99": 1}
    assert {name: seen.count(name) for name in expected} == expected
    assert all(source[i].split()[1] == source.image_id(i).split()[1] for i in range(len(source)))
    assert [source.num_boxes(i) for i in range(len(source))].count(2) == 10
    assert source.ground_truth() == _Listed(classes, crowd).ground_truth()


def test_fractions_of_repeats_add_up():
    # A fifth of the images have class 1: √(0.4 / 0.2) = 1.414… times each.
    classes = [[1] if i % 5 == 0 else [0] for i in range(1000)]
    source = RepeatedSource(_Listed(classes), threshold=0.4)
    assert abs(len(source) - (800 + 200 * np.sqrt(2))) <= 1


def test_a_real_source_keeps_every_image():
    shapes = ShapesSource(20, 0)
    source = RepeatedSource(shapes, threshold=1.0)
    assert {source.image_id(i) for i in range(len(source))} == {shapes.image_id(i) for i in range(20)}
    assert len(source) > 20


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(UserError, match="config.data.repeat_threshold is"):
        RepeatedSource(_Listed([[0]]), threshold)
