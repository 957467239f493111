"""A choice of classes and a fraction of the images leave what they say, in examples and ground truth alike."""

import numpy as np
import pytest

from yolox_jax.data.sources.shapes import CLASS_NAMES, ShapesSource
from yolox_jax.data.views.classes import ClassesSource
from yolox_jax.data.views.selected import FractionSource
from yolox_jax.data.views.source_view import SourceView
from yolox_jax.errors import UserError
from yolox_jax.types import Source

SHAPES = ShapesSource(12, seed=0)


def _truth_of(source):
    """For each image, the name and box of each annotation."""
    truth = source.ground_truth()
    name_of = {each["id"]: each["name"] for each in truth["categories"]}
    boxes = {image["id"]: [] for image in truth["images"]}
    for each in truth["annotations"]:
        boxes[each["image_id"]].append((name_of[each["category_id"]], each["bbox"]))
    return boxes


def _assert_consistent(source):
    """Examples, labels, numbers of boxes and ground truth of a source agree."""
    assert isinstance(source, Source)
    truth = _truth_of(source)
    assert [each["name"] for each in source.ground_truth()["categories"]] == list(source.class_names)
    for index in range(len(source)):
        example = source[index]
        assert source.num_boxes(index) == len(example.labels) == len(example.boxes_xyxy)
        assert source.labels(index).tolist() == example.labels.tolist() and source.labels(index).dtype == np.int32
        expected = truth[source.image_id(index)]
        assert [source.class_names[label] for label in example.labels] == [name for name, _ in expected]
        corners = [(x, y, x + width, y + height) for _, (x, y, width, height) in expected]
        np.testing.assert_allclose(example.boxes_xyxy, np.array(corners).reshape(-1, 4), atol=1e-3)


@pytest.mark.parametrize("single_class", [False, True])
@pytest.mark.parametrize("classes", [(), CLASS_NAMES[:1], (CLASS_NAMES[2], CLASS_NAMES[0])])
def test_boxes_of_the_named_classes_stay_with_labels_in_the_order_given(classes, single_class):
    source = ClassesSource(SHAPES, classes, single_class)
    assert source.class_names == (("object",) if single_class else classes or CLASS_NAMES)
    assert len(source) == len(SHAPES)
    _assert_consistent(source)
    kept = [sum(CLASS_NAMES[label] in (classes or CLASS_NAMES) for label in SHAPES.labels(i)) for i in range(12)]
    assert [source.num_boxes(i) for i in range(12)] == kept


class _WithAnObject(SourceView):
    """The last class is called "object"."""

    def __init__(self):
        super().__init__(SHAPES)
        self.class_names = (*CLASS_NAMES[:-1], "object")

    def ground_truth(self):
        truth = super().ground_truth()
        *others, last = truth["categories"]
        return truth | {"categories": [*others, last | {"name": "object"}]}


def test_a_class_that_is_called_object_keeps_its_id():
    source = ClassesSource(_WithAnObject(), ("object",), False)
    (category,) = source.ground_truth()["categories"]
    assert category["id"] == SHAPES.ground_truth()["categories"][-1]["id"] != 1
    _assert_consistent(source)


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("cube",), "classes names cube, but the data set has"), ((CLASS_NAMES[0],) * 2, "has a name twice")],
)
def test_wrong_names_are_refused(classes, message):
    with pytest.raises(UserError, match=message):
        ClassesSource(SHAPES, classes, False)


def test_classes_without_a_box_are_refused():
    empty = ShapesSource(12, seed=0)
    empty.labels = lambda index: np.zeros(0, np.int32)
    with pytest.raises(
        UserError, match=rf"none of the 12 images has a box of config.data.classes \({CLASS_NAMES[0]}\)"
    ):
        ClassesSource(empty, CLASS_NAMES[:1], False)


def test_a_fraction_is_part_of_a_larger_one_and_in_order():
    sizes = {share: FractionSource(SHAPES, share) for share in (0.01, 0.25, 0.5, 1.0)}
    ids = {share: [source.image_id(i) for i in range(len(source))] for share, source in sizes.items()}
    assert [len(each) for each in ids.values()] == [1, 3, 6, 12]
    assert set(ids[0.01]) < set(ids[0.25]) < set(ids[0.5]) < set(ids[1.0])
    assert all(each == sorted(each) for each in ids.values()) and ids[1.0] == list(range(1, 13))
    _assert_consistent(sizes[0.5])
    assert set(_truth_of(sizes[0.5])) == set(ids[0.5])


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.1])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(UserError, match="config.data.fraction is"):
        FractionSource(SHAPES, fraction)
