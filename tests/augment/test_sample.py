"""Checks the rules of the reference's TrainTransform and MosaicDetection one by one."""

import numpy as np
import pytest

from tests.data.made_source import MadeSource, striped
from tests.recipe import augment_config
from yolox_jax.augment.colour import shift_content
from yolox_jax.augment.sample import train_sample
from yolox_jax.data.views.cache import FittedSource
from yolox_jax.types import Example

NO_AUG = augment_config(flip_prob=0.0).no_aug()
MOSAIC = augment_config(mixup_prob=0.0)
SIZE_HW = (48, 64)


def sample_of(source, augment=NO_AUG, *, num_slots=4, size_hw=SIZE_HW, seed=0, partners=None):
    order = iter(partners or [])

    def draw_partner(rng):
        return next(order) if partners is not None else int(rng.integers(len(source)))

    return train_sample(
        FittedSource(source, size_hw),
        0,
        np.random.default_rng(seed),
        size_hw=size_hw,
        num_slots=num_slots,
        augment=augment,
        draw_partner=draw_partner,
    )


class MixedSource(MadeSource):
    """Image i has the gray level 40 i and `numbers[i]` boxes of label i, each the middle quarter of the image."""

    def __init__(self, numbers):
        super().__init__(np.zeros((48, 64, 3), np.uint8), [], length=len(numbers))
        self.numbers = numbers

    def __getitem__(self, index):
        boxes = np.array([[16, 12, 48, 36]] * self.numbers[index], np.float32).reshape(-1, 4)
        labels = np.full(len(boxes), index, np.int32)
        return Example(np.full((48, 64, 3), 40 * index, np.uint8), boxes, labels, self.image_id(index))

    def num_boxes(self, index):
        return self.numbers[index]


def test_boxes_are_scaled_with_the_image():
    sample = sample_of(MadeSource(striped(), [[2, 4, 12, 20]]))
    np.testing.assert_array_equal(sample.boxes[0], [4, 8, 24, 40])
    assert sample.mask.tolist() == [True, False, False, False]
    assert not sample.boxes[1:].any()
    assert sample.content_hw == (48, 64)


def test_image_and_boxes_are_flipped_together_before_the_padding():
    augment = augment_config(flip_prob=1.0).no_aug()
    sample = sample_of(MadeSource(striped(), [[2, 4, 12, 20]]), augment, size_hw=(24, 40))
    np.testing.assert_array_equal(sample.image[:, :32], striped()[:, ::-1])
    assert (sample.image[:, 32:] == 114).all()
    np.testing.assert_array_equal(sample.boxes[0], [20, 4, 30, 20])
    assert sample.content_hw == (24, 32)


@pytest.mark.parametrize(("flip_prob", "low", "high"), [(0.0, 0, 0), (0.5, 70, 130), (1.0, 200, 200)])
def test_samples_are_flipped_with_the_given_probability(flip_prob, low, high):
    source, augment = MadeSource(striped(), [[2, 4, 12, 20]]), augment_config(flip_prob=flip_prob).no_aug()
    samples = [sample_of(source, augment, size_hw=(24, 32), seed=seed) for seed in range(200)]
    flipped = [(sample.image == striped()[:, ::-1]).all() for sample in samples]
    straight = [(sample.image == striped()).all() for sample in samples]
    assert all(a != b for a, b in zip(flipped, straight, strict=True))
    assert low <= sum(flipped) <= high


@pytest.mark.parametrize(("mosaic_prob", "low", "high"), [(0.0, 0, 0), (0.5, 70, 130), (1.0, 200, 200)])
def test_samples_are_mosaics_with_the_given_probability(mosaic_prob, low, high):
    source, augment = MixedSource([1, 1]), augment_config(mosaic_prob=mosaic_prob)
    num_images = [len(sample_of(source, augment, seed=seed).image_ids) for seed in range(200)]
    assert set(num_images) <= {1, 5}
    assert low <= num_images.count(5) <= high


def test_boxes_of_an_input_pixel_or_less_are_left_out():
    boxes = [[0, 0, 2, 20], [0, 0, 2.5, 20], [0, 0, 20, 1]]
    sample = sample_of(MadeSource(striped(), boxes), size_hw=(12, 16))
    assert sample.mask.sum() == 1
    assert sample.labels[0] == 1
    assert sample.num_dropped_boxes == 0


def test_if_no_box_is_larger_the_image_is_not_flipped_or_shifted_and_keeps_all_its_boxes():
    augment = augment_config(flip_prob=1.0).no_aug()
    for seed in range(8):
        source = MadeSource(striped(), [[0, 0, 1, 20], [4, 0, 20, 1]])
        sample = sample_of(source, augment, size_hw=(24, 32), seed=seed)
        np.testing.assert_array_equal(sample.image, striped())
        np.testing.assert_array_equal(sample.boxes[:2], [[0, 0, 1, 20], [4, 0, 20, 1]])
        assert sample.mask.sum() == 2
        assert sample.content_hw == (0, 0)


def test_an_image_without_boxes_is_not_changed():
    augment = augment_config(flip_prob=1.0).no_aug()
    for seed in range(8):
        sample = sample_of(MadeSource(striped(), []), augment, size_hw=(24, 32), seed=seed)
        np.testing.assert_array_equal(sample.image, striped())
        assert not sample.mask.any()
        assert sample.content_hw == (0, 0)


def test_an_image_without_a_large_enough_box_is_not_shifted_on_the_device():
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    for boxes in ([], [[0, 0, 1, 20]]):
        sample = sample_of(MadeSource(image, boxes), size_hw=(24, 32))
        np.testing.assert_array_equal(shift_content(sample.image, sample.hsv_shift, np.array(sample.content_hw)), image)


def test_an_image_with_boxes_is_shifted_in_color():
    source = MadeSource(striped(), [[2, 4, 12, 20]])
    assert any(sample_of(source, seed=seed).hsv_shift.any() for seed in range(8))
    assert sample_of(source, augment_config(hsv=None).no_aug()).hsv_shift is None


def test_a_mosaic_has_the_boxes_and_ids_of_its_four_images():
    wide = augment_config(mixup_prob=0.0, degrees=0.0, shear=0.0, translate=0.0, scale=(0.5, 0.5), flip_prob=0.0)
    sample = sample_of(MixedSource([1, 2, 0, 1]), wide, num_slots=8, partners=[1, 2, 3])
    assert sample.image_ids == ("image 0", "image 1", "image 2", "image 3")
    assert sample.labels[sample.mask].tolist() == [0, 1, 1, 3]
    assert sample.content_hw == SIZE_HW
    for (x1, y1, x2, y2), label in zip(sample.boxes[sample.mask], sample.labels[sample.mask], strict=True):
        inside = sample.image[int(y1) + 1 : int(y2) - 1, int(x1) + 1 : int(x2) - 1]
        assert inside.size and (inside == 40 * label).all()


def test_mixup_adds_the_next_partner_that_has_boxes():
    augment = augment_config(mixup_scale=(1.0, 1.0))
    sample = sample_of(MixedSource([1, 0, 0, 0, 2]), augment, num_slots=8, partners=[1, 2, 3, 1, 3, 4])
    assert sample.image_ids == ("image 0", "image 1", "image 2", "image 3", "image 4")
    assert sample.labels[sample.mask].tolist()[-2:] == [4, 4]


def test_a_mosaic_without_boxes_is_not_mixed_up():
    sample = sample_of(MixedSource([0, 0, 0, 0, 2]), augment_config(), partners=[1, 2, 3])
    assert len(sample.image_ids) == 4
    assert not sample.mask.any()
    assert sample.content_hw == (0, 0)


@pytest.mark.parametrize(("mixup_prob", "low", "high"), [(0.0, 0, 0), (0.5, 70, 130), (1.0, 200, 200)])
def test_mosaics_are_mixed_up_with_the_given_probability(mixup_prob, low, high):
    source, augment = MixedSource([1, 1]), augment_config(mixup_prob=mixup_prob)
    num_images = [len(sample_of(source, augment, seed=seed).image_ids) for seed in range(200)]
    assert set(num_images) <= {4, 5}
    assert low <= num_images.count(5) <= high


def test_a_mosaic_whose_boxes_are_all_too_small_keeps_them_as_the_reference_does():
    # So small that every box is below a pixel, wherever it is.
    tiny = augment_config(mixup_prob=0.0, scale=(0.02, 0.02), translate=0.0, flip_prob=1.0)
    sample = sample_of(MixedSource([1, 1]), tiny, num_slots=8)
    assert sample.mask.sum() == 4
    assert sample.content_hw == (0, 0)


def test_an_image_of_the_source_is_never_modified():
    class Frozen(MixedSource):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            example.image.flags.writeable = False
            example.boxes_xyxy.flags.writeable = False
            return example

    for augment in (augment_config(), augment_config().no_aug()):
        for seed in range(10):
            sample_of(Frozen([1, 1, 2]), augment, seed=seed)


def test_the_shortest_side_of_a_box_is_configurable():
    boxes = [[0, 0, 4, 20], [0, 0, 4.5, 20]]  # twice as large in the sample
    source = MadeSource(striped(), boxes)
    wide = augment_config(flip_prob=0.0, min_box_side=8.0).no_aug()
    assert sample_of(source, wide).boxes[sample_of(source, wide).mask].tolist() == [[0, 0, 9, 40]]
    assert sample_of(source).mask.sum() == 2
