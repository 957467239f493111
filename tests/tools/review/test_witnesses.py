"""Witnesses: the boxes of every view and checkpoint in the pixels of the image, and the review that asks them."""

import dataclasses

import numpy as np
import pytest

from tests.inference.white_pixels import CLASS_NAMES, WhitePixels, white_box
from yolox_jax.boxes import xyxy_to_xywh
from yolox_jax.inference.pretrained import Pretrained
from yolox_jax.tools.review import witnesses
from yolox_jax.tools.review.labels import Labels
from yolox_jax.tools.review.reviewing import review
from yolox_jax.tools.review.witnesses import Witnesses, spread
from yolox_jax.types import Example

_SIZE = (64, 96)
# Landscape fills the input, portrait leaves its right side gray; the corners are whole pixels of the input.
_IMAGES = [((128, 192), (20, 40, 60, 100)), ((128, 80), (4, 10, 30, 90)), ((64, 96), (70, 3, 96, 20))]


@pytest.fixture
def witnesses_of(monkeypatch):
    """Makes witnesses that find white pixels, with the score that their checkpoint has in place of weights."""
    white = WhitePixels()

    def predict(score, images_BHW3):
        found = white(images_BHW3)
        return dataclasses.replace(found, scores=found.mask * np.float32(score))

    monkeypatch.setattr(witnesses, "make_predict", lambda *arguments: predict)
    monkeypatch.setattr(witnesses, "fold_batch_norm", lambda model, variables, platform: variables)

    def make(*scores, batch_size=8):
        loaded = [Pretrained("nano", None, np.float32(score), CLASS_NAMES, _SIZE) for score in scores]
        return Witnesses(loaded, _SIZE, batch_size), white

    return make


def test_the_mirrored_view_finds_a_box_where_the_image_has_it(witnesses_of):
    seen_by, white = witnesses_of(0.9, batch_size=4)
    images = [white_box(*image_hw, box_xyxy) for image_hw, box_xyxy in _IMAGES]
    found = seen_by.detect(images)
    assert white.batch_sizes == [4, 4]
    for in_image, (_, box_xyxy) in zip(found, _IMAGES, strict=True):
        assert [each.names for each in in_image] == [["white"]] * 2
        np.testing.assert_allclose([each.boxes_xyxy[0] for each in in_image], [box_xyxy] * 2)


def test_each_checkpoint_is_two_witnesses_the_first_of_them_first(witnesses_of):
    seen_by, _ = witnesses_of(0.9, 0.5)
    (found,) = seen_by.detect([white_box(64, 96, (5, 6, 40, 50))])
    assert len(seen_by) == len(found) == 4
    np.testing.assert_allclose([each.scores for each in found], [[0.9], [0.9], [0.5], [0.5]])


class _WhiteBoxes:
    """Images of several sizes with one white box each, whose labels lack that of one image."""

    class_names = CLASS_NAMES

    def __init__(self, length, unlabeled):
        self.length, self.unlabeled = length, unlabeled

    def __len__(self):
        return self.length

    def image_id(self, index):
        return 100 - index

    def boxed(self, index):
        image_hw, box_xyxy = _IMAGES[index % len(_IMAGES)]
        return image_hw, np.array(box_xyxy, np.float32)

    def __getitem__(self, index):
        image_hw, box_xyxy = self.boxed(index)
        return Example(white_box(*image_hw, box_xyxy.astype(int)), box_xyxy[None], np.ones(1), self.image_id(index))

    def ground_truth(self):
        images, annotations = [], []
        for index in range(self.length):
            (height, width), box_xyxy = self.boxed(index)
            images.append({"id": self.image_id(index), "height": height, "width": width})
            box = {"id": index, "image_id": self.image_id(index), "category_id": 2, "iscrowd": 0}
            annotations.append(box | {"bbox": xyxy_to_xywh(box_xyxy).tolist()})
        del annotations[self.unlabeled]
        categories = [{"id": label, "name": name} for label, name in enumerate(CLASS_NAMES, 1)]
        return {"images": images, "annotations": annotations, "categories": categories}


def test_a_review_of_several_batches_suspects_only_the_label_that_was_removed(witnesses_of, capsys):
    source = _WhiteBoxes(length=11, unlabeled=9)
    seen_by, white = witnesses_of(0.9, 0.8, batch_size=4)
    truth = source.ground_truth()
    (only,) = review(source, Labels(truth, truth), seen_by, most=5)
    _, box_xyxy = source.boxed(9)
    assert (only["kind"], only["image_id"], only["new_category_id"]) == ("missing", source.image_id(9), 2)
    assert only["new_bbox"] == xyxy_to_xywh(box_xyxy).tolist()
    assert only["doubt"] > 0.5
    assert white.batch_sizes == [4] * (3 * 4)  # three batches, four witnesses
    assert capsys.readouterr().out == "reviewed 11/11 images\n"


def test_checkpoints_are_the_last_and_earlier_ones_of_the_second_half(tmp_path):
    for step in (78, 156, 234, 312, 338, 364, 390):
        (tmp_path / str(step) / "ema").mkdir(parents=True)
    steps = {most: [int(path.name) for path in spread(tmp_path / "390", most)] for most in (1, 3, 9)}
    assert steps == {1: [390], 3: [390, 338, 234], 9: [390, 364, 338, 312, 234]}
    assert spread(tmp_path / "78", 3) == [tmp_path / "78"]
    assert spread(tmp_path / "mine", 3) == [tmp_path / "mine"]  # a checkpoint under another name
