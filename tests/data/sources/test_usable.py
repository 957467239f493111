"""A split without a box to learn is an error that counts the reasons; if most are left out, a warning says so twice."""

import json
import logging

import cv2
import numpy as np
import pytest

from yolox_jax.data.sources import problems, usable
from yolox_jax.data.sources.open import open_split
from yolox_jax.errors import UserError

NUM_IMAGES = 6
DATA = {"kind": "coco", "train": "train.json", "train_images": ".", "val": "train.json", "val_images": "."}
RUNS = {"size": [96, 128], "counts": [960, 40, 11288]}  # column 10, rows 0 to 39


@pytest.fixture
def open_coco(tmp_path):
    """Returns a function that opens six images with one annotation each, changed by `changes(number)`."""

    def open_it(changes, split="train", **fields):
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "part"}]}
        for number in range(1, NUM_IMAGES + 1):
            cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((96, 128, 3), 90, np.uint8))
            content["images"].append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 96})
            record = {"id": number, "image_id": number, "category_id": 1, "bbox": [10, 20, 30, 40]}
            changed = changes(number)
            if changed is not None:
                content["annotations"].append(record | changed)
        (tmp_path / "train.json").write_text(json.dumps(content))
        return open_split(DATA | {"root": str(tmp_path)} | fields, split)

    return open_it


UNUSABLE = {
    "ids as text": ({"image_id": "7"}, problems.UNKNOWN_IMAGE, "image_id '7'"),
    "areas of 0": ({"area": 0}, problems.NO_AREA, "area 0"),
    "a bbox of text": ({"bbox": ["1", "2", "3", "4"]}, problems.NOT_FOUR_NUMBERS, "bbox ['1', '2', '3', '4']"),
    "no bbox": ({"bbox": None}, problems.NOT_FOUR_NUMBERS, "bbox None"),
}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("reason", UNUSABLE)
def test_annotations_that_are_all_left_out_are_an_error_with_their_number_and_the_first(open_coco, reason, split):
    changes, kind, found = UNUSABLE[reason]
    with pytest.raises(UserError) as caught:
        open_coco(lambda number: changes, split)
    assert f"{split}: not one of the 6 annotations can be used (6: {kind}, first " in caught.value.what
    assert f"annotation 1: {found}" in caught.value.what


def test_several_reasons_are_counted_each(open_coco):
    with pytest.raises(UserError) as caught:
        open_coco(lambda number: {"area": 0} if number > 2 else {"category_id": 9})
    assert f"2: {problems.UNKNOWN_CATEGORY}" in caught.value.what and f"4: {problems.NO_AREA}" in caught.value.what


def test_a_file_of_crowds_says_so_and_how_to_learn_them(open_coco):
    with pytest.raises(UserError, match=r"6: most annotations are crowds .*set --config\.data\.crowd_as_object=true"):
        open_coco(lambda number: {"iscrowd": 1})
    source = open_coco(lambda number: {"iscrowd": 1}, crowd_as_object=True)
    assert source[0].boxes_xyxy.tolist() == [[10, 20, 40, 60]]
    assert [record["iscrowd"] for record in source.ground_truth()["annotations"]] == [0] * NUM_IMAGES
    assert source.problems == []


def test_images_without_any_annotation_are_an_error_in_training_and_a_warning_in_validation(open_coco, caplog):
    with pytest.raises(UserError, match="train: the 6 images have no annotations"):
        open_coco(lambda number: None)
    with caplog.at_level(logging.WARNING, "yolox_jax.data"):
        assert len(open_coco(lambda number: None, "val")) == NUM_IMAGES
    assert "AP is undefined" in caplog.text


@pytest.mark.parametrize(("num_left_out", "warns"), [(3, False), (4, True)])
def test_fewer_than_half_used_is_a_warning_at_the_start_and_again_at_the_end(open_coco, caplog, num_left_out, warns):
    with caplog.at_level(logging.WARNING, "yolox_jax.data"):
        source = open_coco(lambda number: {"area": 0} if number <= num_left_out else {})
    summary = [record.getMessage() for record in caplog.records if problems.FEW_USABLE in record.getMessage()]
    assert len(summary) == warns
    caplog.clear()
    usable.warn_again(source)
    assert [record.getMessage() for record in caplog.records] == summary
    assert not warns or f"2 are used, 4 are not (4: {problems.NO_AREA}, first " in summary[0]


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([[10, 20, 30, 20, 30, 45]], [10, 20, 30, 45]),
        ([[10, 20, 30, 20, 30, 45], [5, 30, 9, 30, 9, 50]], [5, 20, 30, 50]),
        (RUNS, [10, 0, 11, 40]),
    ],
)
@pytest.mark.parametrize("bbox", [None, []])
def test_an_annotation_without_bbox_has_the_box_of_its_segmentation(open_coco, segmentation, box, bbox):
    source = open_coco(lambda number: {"bbox": bbox, "segmentation": segmentation})
    assert source[0].boxes_xyxy.tolist() == [box]
    assert source.problems == []
