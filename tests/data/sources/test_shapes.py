"""Drawn shapes: exact boxes, the stated ranges, and pictures that depend only on seed and index."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from yolox_jax.data.sources import shapes
from yolox_jax.data.sources.shapes import ShapesSource


def pixels_alone(plan, shape):
    canvas = np.zeros((plan.height, plan.width), np.uint8)
    cv2.fillPoly(canvas, [shape.polygon], 1)
    return canvas.astype(bool)


def tight_box(pixels):
    ys, xs = np.nonzero(pixels)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def test_every_box_is_the_tight_box_of_the_shapes_own_pixels():
    source = ShapesSource(60, seed=3)
    num_checked = 0
    for index in range(len(source)):
        plan, example = source.plan(index), source[index]
        assert len(example.boxes_xyxy) == len(plan.shapes)
        for shape, box, label in zip(plan.shapes, example.boxes_xyxy, example.labels, strict=True):
            assert tuple(box) == tight_box(pixels_alone(plan, shape))
            assert label == shape.label
            num_checked += 1
    assert num_checked > 100


def test_a_shape_changes_the_picture_in_its_box_and_nowhere_else():
    source = ShapesSource(20, seed=0)
    for index in range(len(source)):
        plan = source.plan(index)
        drawn = [
            shapes.draw(dataclasses.replace(plan, shapes=plan.shapes[:count]), np.random.default_rng(0))
            for count in range(len(plan.shapes) + 1)
        ]
        for shape, before, after in zip(plan.shapes, drawn[:-1], drawn[1:], strict=True):
            assert shape.box_xyxy == tight_box((before != after).any(axis=2))


def test_every_shape_keeps_two_fifths_of_its_pixels_and_some_are_covered():
    source = ShapesSource(200, seed=1)
    num_covered = 0
    for index in range(len(source)):
        plan = source.plan(index)
        masks = [pixels_alone(plan, shape) for shape in plan.shapes]
        for position, mask in enumerate(masks):
            hidden = np.any([mask & above for above in masks[position + 1 :]], axis=0) if masks[position + 1 :] else 0
            visible = 1 - np.sum(hidden) / mask.sum()
            assert visible >= 0.4
            num_covered += visible < 0.95
    assert num_covered > 20


def test_pictures_are_within_the_stated_ranges():
    source = ShapesSource(400, seed=2, max_side=160)
    plans = [source.plan(index) for index in range(len(source))]
    assert 0.04 < np.mean([not plan.shapes for plan in plans]) < 0.13  # 8 % are without shapes
    assert {len(plan.shapes) for plan in plans} == {0, 1, 2, 3, 4, 5, 6}
    assert {shape.label for plan in plans for shape in plan.shapes} == {0, 1, 2, 3}
    for plan in plans:
        assert 100 <= min(plan.height, plan.width) <= max(plan.height, plan.width) <= 160
        for shape in plan.shapes:
            x1, y1, x2, y2 = shape.box_xyxy
            assert 0 <= x1 < x2 <= plan.width
            assert 0 <= y1 < y2 <= plan.height
            assert 0.09 < max(x2 - x1, y2 - y1) / min(plan.height, plan.width) < 0.52
            assert math.dist(shape.color, plan.background) >= 130


def test_a_picture_is_a_function_of_only_seed_and_index():
    source, again, other = ShapesSource(50, seed=7), ShapesSource(9, seed=7), ShapesSource(9, seed=8)
    late = source[8]
    for index in (8, 0, 8):  # in any order
        first, second = source[index], again[index]
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.boxes_xyxy, second.boxes_xyxy)
        np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(source[8].image, late.image)
    assert not np.array_equal(source[0].image[:90, :90], source[1].image[:90, :90])
    assert not np.array_equal(source[0].image[:90, :90], other[0].image[:90, :90])


def test_ground_truth_has_the_boxes_of_the_examples():
    source = ShapesSource(15, seed=4)
    truth = source.ground_truth()
    assert [(category["id"], category["name"]) for category in truth["categories"]] == list(
        enumerate(source.class_names, 1)
    )
    assert [annotation["id"] for annotation in truth["annotations"]] == list(range(1, len(truth["annotations"]) + 1))
    for index, image in enumerate(truth["images"]):
        example = source[index]
        assert image["id"] == example.image_id == source.image_id(index)
        assert (image["height"], image["width"]) == example.image.shape[:2]
        mine = [annotation for annotation in truth["annotations"] if annotation["image_id"] == image["id"]]
        assert [annotation["category_id"] - 1 for annotation in mine] == example.labels.tolist()
        for annotation, (x1, y1, x2, y2) in zip(mine, example.boxes_xyxy.tolist(), strict=True):
            assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
            assert annotation["area"] == (x2 - x1) * (y2 - y1)
            assert annotation["iscrowd"] == 0


def test_iteration_ends_at_the_length():
    assert len(list(ShapesSource(3, seed=0))) == 3
    with pytest.raises(IndexError, match="picture 3 of 3"):
        ShapesSource(3, seed=0)[3]


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="needs num_images >= 1"):
        ShapesSource(0, seed=0)
