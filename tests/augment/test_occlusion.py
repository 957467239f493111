"""Pasted boxes lie where their labels say, and boxes are left out by the share of them that is hidden."""

import dataclasses

import numpy as np
import pytest

from tests.recipe import augment_config
from yolox_jax.augment import draws
from yolox_jax.augment.occlusion import Paste, cut_out, hidden_shares, paste

CONFIG = augment_config().occlusion


@pytest.mark.parametrize("flip", [False, True])
def test_a_pasted_box_has_its_own_pixels(flip):
    image = np.zeros((40, 50, 3), np.uint8)
    image[10:20, 5:25] = 200  # the box, with a border of black to the left only
    picture = np.full((60, 70, 3), 30, np.uint8)
    each = Paste(0, source_xyxy=(3, 10, 25, 20), size_hw=(20, 44), corner_xy=(7, 9), flip=flip)
    pasted, boxes = paste(picture, image, np.array([[5.0, 10, 25, 20]]), [each])
    assert (picture == 30).all()
    x1 = 7 if flip else 7 + 4
    np.testing.assert_array_equal(boxes, [[x1, 9, x1 + 40, 29]])
    assert (pasted[9:29, x1 + 2 : x1 + 38] == 200).all()
    pasted[9:29, 7:51] = 30
    assert (pasted == 30).all()


def test_shares_are_those_of_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 20, (9, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 12, (9, 2))], axis=1)
    holes = [(2, 3, 9, 12), (20, 20, 30, 30)]
    pasted = [tuple(box) for box in boxes[5:].tolist()]
    shares = hidden_shares(boxes.astype(float), pasted, holes, (32, 32))
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        covers = [*holes, *pasted[max(0, row - 4) :]]  # of the last four, only what was pasted after them
        pixels = [(x, y) for x in range(x1, x2) for y in range(y1, y2)]
        num = sum(any(a <= x < c and b <= y < d for a, b, c, d in covers) for x, y in pixels)
        assert shares[row] == pytest.approx(num / len(pixels))


def test_holes_are_gray_and_nothing_else_changes():
    picture = np.arange(20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)
    cut = cut_out(picture, [(3, 4, 10, 8)])
    assert (cut[4:8, 3:10] == 114).all()
    changed = (cut != picture).any(axis=2)
    changed[4:8, 3:10] = False
    assert not changed.any()


def test_pastes_that_may_not_flip_are_the_same_but_straight():
    boxes, flips = np.array([[2.0, 3, 20, 30], [10, 10, 20, 21]]), set()
    for seed in range(20):
        free, straight = (
            draws.draw_pastes(np.random.default_rng(seed), (48, 64), (50, 60), boxes, CONFIG, may_flip=may_flip)
            for may_flip in (True, False)
        )
        flips |= {each.flip for each in free}
        assert straight == [dataclasses.replace(each, flip=False) for each in free]
    assert flips == {False, True}


def test_drawn_boxes_and_holes_are_inside_the_picture_and_of_the_configured_size():
    boxes = np.array([[2.3, 3.4, 20.5, 30.1], [0, 0, 60, 50], [10, 10, 10.4, 11]])
    num_pastes, num_holes = set(), set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        pastes = draws.draw_pastes(rng, (48, 64), (50, 60), boxes, CONFIG, may_flip=True)
        num_pastes.add(len(pastes))
        for each in pastes:
            x1, y1, x2, y2 = each.target_xyxy
            assert 0 <= x1 < x2 <= 64 and 0 <= y1 < y2 <= 48
            (left, top, right, bottom), box = each.source_xyxy, boxes[each.index]
            assert left <= box[0] and top <= box[1] and right >= box[2] and bottom >= box[3]
            scale = np.array([(x2 - x1) / (right - left), (y2 - y1) / (bottom - top)])
            assert (np.abs(scale * (right - left, bottom - top) - (x2 - x1, y2 - y1)) < 1).all()
            assert (scale >= 0.5 - 0.5 / (right - left)).all() and (scale <= 1.5 + 0.5 / (bottom - top)).all()
        holes = draws.draw_holes(rng, (100, 200), CONFIG)
        num_holes.add(len(holes))
        for x1, y1, x2, y2 in holes:
            assert 0 <= x1 <= x2 <= 200 and 0 <= y1 <= y2 <= 100 and x2 - x1 <= 41 and y2 - y1 <= 21
    assert num_pastes == {0, 1, 2, 3} and num_holes == {1, 2, 3, 4}
