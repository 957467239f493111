"""Each further augmentation changes what it says and nothing else: all other draws stay as they are."""

import dataclasses

import cv2
import numpy as np
import pytest

from tests.augment.test_sample import sample_of
from tests.data.made_source import MadeSource
from tests.recipe import augment_config
from yolox_jax.augment.draws import Stream, stream_of
from yolox_jax.augment.quality import QualityParameters, degrade
from yolox_jax.boxes import flip_vertical_xyxy, min_sides_xyxy, turn_xyxy
from yolox_jax.data.order import sample_rng

RECIPE = augment_config()
SEEDS = range(6)
IMAGE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8), (0, 0), 2)
SOURCE = MadeSource(IMAGE, [[8, 8, 30, 34], [20, 4, 44, 20]], length=3)
SQUARE = {"size_hw": (48, 48), "num_slots": 12}


def changed(part, **fields):
    return dataclasses.replace(RECIPE, **{part: dataclasses.replace(getattr(RECIPE, part), **fields)})


def pairs(augment, base=RECIPE):
    """Samples with and without an augmentation, of the same seeds."""
    samples = [(sample_of(SOURCE, base, seed=i, **SQUARE), sample_of(SOURCE, augment, seed=i, **SQUARE)) for i in SEEDS]
    assert any(one.content_hw != (0, 0) for one, _ in samples)
    return samples


def boxes_of(sample):
    return sample.boxes[sample.mask]


def test_a_vertical_flip_is_one_of_the_sample_without_it():
    for one, other in pairs(dataclasses.replace(RECIPE, vertical_flip_prob=1.0)):
        if one.content_hw != (0, 0):
            np.testing.assert_array_equal(other.image, one.image[::-1])
            np.testing.assert_allclose(boxes_of(other), flip_vertical_xyxy(boxes_of(one), 48), atol=1e-4)


def test_turns_by_90_180_and_270_degrees_are_those_of_the_sample_without_them():
    turned = dataclasses.replace(RECIPE, turn_prob=1.0)
    quarters = []
    for seed in range(30):
        one, other = (sample_of(SOURCE, augment, seed=seed, **SQUARE) for augment in (RECIPE, turned))
        fits = [k for k in (1, 2, 3) if np.array_equal(other.image, np.rot90(one.image, k))]
        if one.content_hw == (0, 0):
            continue
        assert len(fits) == 1
        quarters += fits
        boxes = boxes_of(one)
        for _ in range(fits[0]):
            boxes = turn_xyxy(boxes, 48)
        np.testing.assert_allclose(boxes_of(other), boxes, atol=1e-4)
    assert set(quarters) == {1, 2, 3}


def test_an_image_turned_for_an_input_that_is_not_square_fits_it_again():
    turned = dataclasses.replace(RECIPE, turn_prob=1.0, flip_prob=0.0).no_aug()
    source = MadeSource(np.full((24, 64, 3), 200, np.uint8), [[0, 0, 64, 12]])
    contents = set()
    for seed in range(10):
        sample = sample_of(source, turned, size_hw=(48, 64), seed=seed)
        contents.add(sample.content_hw)
        assert sample.image.shape == (48, 64, 3)
        x1, y1, x2, y2 = sample.boxes[0]
        height, width = sample.content_hw
        assert (x2 - x1) * (y2 - y1) == pytest.approx(height * width / 2)  # half of the image, as before
    assert contents == {(24, 64), (48, 18)}


def test_gray_blur_and_jpeg_are_those_of_the_picture_without_them():
    augment = changed("quality", gray_prob=1.0, jpeg_prob=1.0, jpeg_quality=(50, 50))
    for one, other in pairs(dataclasses.replace(augment, flip_prob=0.0), dataclasses.replace(RECIPE, flip_prob=0.0)):
        np.testing.assert_array_equal(other.image, degrade(one.image, QualityParameters(True, None, 50)))
        np.testing.assert_array_equal(other.boxes, one.boxes)
        assert one.hsv_shift[2] == other.hsv_shift[2] and not other.hsv_shift[:2].any()


def test_copy_paste_adds_boxes_of_a_partner_and_removes_what_they_hide():
    augment = changed("occlusion", paste_prob=1.0, max_hidden=1.0)
    added = 0
    for one, other in pairs(augment):
        num_before = one.mask.sum()
        assert other.mask.sum() >= num_before
        if one.content_hw != (0, 0):
            np.testing.assert_array_equal(boxes_of(other)[:num_before], boxes_of(one))
        added += other.mask.sum() - num_before
        assert len(other.image_ids) - len(one.image_ids) in (0, 1)
    assert added > 3
    strict = changed("occlusion", paste_prob=1.0, max_hidden=0.0)
    assert sum(other.mask.sum() for _, other in pairs(strict)) < sum(other.mask.sum() for _, other in pairs(augment))


def test_cut_out_grays_rectangles_and_leaves_out_the_boxes_below_them():
    augment = changed("occlusion", cutout_prob=1.0, cutout_scale=(0.5, 0.9), max_hidden=0.5)
    pictures = pairs(dataclasses.replace(augment, flip_prob=0.0), dataclasses.replace(RECIPE, flip_prob=0.0))
    for one, other in pictures:
        differ = (one.image != other.image).any(axis=2)
        assert (other.image[differ] == 114).all()
    assert sum(other.mask.sum() for _, other in pictures) < sum(one.mask.sum() for one, _ in pictures)


def test_crop_and_perspective_keep_colors_flips_and_partners():
    for augment in (changed("view", crop_prob=1.0, crop_scale=(0.5, 0.8)), changed("view", perspective=0.1)):
        for one, other in pairs(augment):
            assert one.image_ids == other.image_ids
            np.testing.assert_array_equal(one.hsv_shift, other.hsv_shift)
            assert not np.array_equal(one.image, other.image)
            assert (other.boxes >= 0).all() and (other.boxes <= 48).all()


def test_a_crop_that_shows_no_box_has_none():
    """A box of which nothing is left would be learned at the border of the picture."""
    source = MadeSource(IMAGE, [[0, 0, 12, 12]])
    augment = dataclasses.replace(changed("view", crop_prob=1.0, crop_scale=(0.4, 0.6)), mosaic_prob=0.0)
    samples = [sample_of(source, augment, seed=seed, **SQUARE) for seed in range(30)]
    assert all((min_sides_xyxy(boxes_of(sample)) > augment.min_box_side).all() for sample in samples)
    assert 0 < sum(sample.mask.any() for sample in samples) < 30


def test_pasted_text_stays_readable_without_flips():
    image = np.zeros((48, 48, 3), np.uint8)
    image[:, 24:] = 200
    source = MadeSource(image, [[8, 8, 40, 40]], length=3)  # its left half is dark
    pasting = dataclasses.replace(RECIPE.occlusion, paste_prob=1.0, paste_max_boxes=1, max_hidden=1.0)
    augment = augment_config(mosaic_prob=0.0, flip_prob=0.0, occlusion=pasting)
    for seed in range(12):
        sample = sample_of(source, augment, seed=seed, **SQUARE)
        x1, y1, x2, y2 = boxes_of(sample)[-1].round().astype(int)
        left, right = np.array_split(sample.image[y1:y2, x1:x2], 2, axis=1)
        assert left.mean() < 50 and right.mean() > 150


def test_the_no_aug_epochs_have_only_flips_turns_and_gray():
    everything = dataclasses.replace(
        changed("view", perspective=0.1, crop_prob=1.0),
        occlusion=dataclasses.replace(RECIPE.occlusion, paste_prob=1.0, cutout_prob=1.0),
        quality=dataclasses.replace(RECIPE.quality, gray_prob=1.0, blur_prob=1.0, jpeg_prob=1.0),
        turn_prob=0.0,
        vertical_flip_prob=1.0,
        flip_prob=0.0,
        hook="json:dumps",
    )
    sample = sample_of(SOURCE, everything.no_aug(), **SQUARE)
    gray = degrade(IMAGE, QualityParameters(True, None, None))
    np.testing.assert_array_equal(sample.image, gray[::-1])
    assert len(sample.image_ids) == 1


def test_own_streams_differ_by_sample_and_purpose_and_draw_nothing_from_the_samples():
    rng = sample_rng(3, seed=1)
    first = {stream: stream_of(rng, stream).random() for stream in Stream}
    assert rng.random() == sample_rng(3, seed=1).random()
    other = {stream: stream_of(sample_rng(4, seed=1), stream).random() for stream in Stream}
    assert len({*first.values(), *other.values()}) == 2 * len(Stream)
    assert first == {stream: stream_of(sample_rng(3, seed=1), stream).random() for stream in Stream}
