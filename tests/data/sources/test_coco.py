"""Reads COCO data sets, and reports what is wrong in their files."""

import json
import logging
import struct

import cv2
import numpy as np
import pytest

from yolox_jax.data.sources import problems
from yolox_jax.data.sources.coco import CocoSource
from yolox_jax.errors import UserError

HEIGHT, WIDTH = 40, 60


def annotation(id, **changes):
    return {"id": id, "image_id": 1, "category_id": 7, "bbox": [10, 10, 20, 5], "area": 80, "iscrowd": 0} | changes


@pytest.fixture
def content():
    """Two images, the second without boxes, and two categories with sparse ids, not in order."""
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 2, "file_name": "sub/b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [annotation(1)],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 7, "name": "train"}],
    }


@pytest.fixture
def open_source(tmp_path):
    """Writes a json beside a folder with a.png and sub/b.png, and opens it."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name, level in (("a.png", 50), ("sub/b.png", 60)):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((HEIGHT, WIDTH, 3), level, np.uint8))

    def open_it(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "train.json").write_text(text)
        return CocoSource(tmp_path / "train.json", tmp_path / "images")

    return open_it


def test_examples_have_pixels_boxes_and_ids_and_an_image_without_boxes_is_kept(open_source, content):
    source = open_source(content)
    assert len(source) == 2
    first, second = source[0], source[1]
    assert (first.image == 50).all()
    assert first.image.shape == (HEIGHT, WIDTH, 3)
    assert first.boxes_xyxy.tolist() == [[10, 10, 30, 15]]
    assert (first.boxes_xyxy.dtype, first.labels.dtype) == (np.float32, np.int32)
    assert (first.image_id, second.image_id, source.image_id(1)) == (1, 2, 2)
    assert (second.image == 60).all()
    assert second.boxes_xyxy.shape == (0, 4)
    assert source.problems == []


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_outside_the_data_set_is_an_error(open_source, content, index):
    with pytest.raises(IndexError, match=f"image {index} of 2"):
        open_source(content)[index]


def test_sparse_category_ids_become_labels_in_order_of_id(open_source, content):
    content["annotations"] = [annotation(1, category_id=90), annotation(2, category_id=7)]
    source = open_source(content)
    assert source.class_names == ("train", "toothbrush")
    assert source[0].labels.tolist() == [1, 0]
    truth = source.ground_truth()
    assert truth["categories"] == [{"id": 7, "name": "train"}, {"id": 90, "name": "toothbrush"}]
    assert [record["category_id"] for record in truth["annotations"]] == [90, 7]


def test_ids_may_be_whole_numbers_with_a_point(open_source, content):
    for record in content["images"]:
        record["id"] = float(record["id"])
    content["categories"][0]["id"] = 90.0
    content["annotations"] = [annotation(1, image_id=1.0, category_id=90), annotation(2, category_id=7.0)]
    source = open_source(content)
    assert source[0].labels.tolist() == [1, 0]
    assert [repr(source.image_id(index)) for index in range(2)] == ["1", "2"]
    assert source.problems == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_json_may_begin_with_a_byte_order_mark(open_source, content, tmp_path, encoding):
    open_source(content)
    (tmp_path / "marked.json").write_text(json.dumps(content), encoding=encoding)
    assert len(CocoSource(tmp_path / "marked.json", tmp_path / "images")) == 2


def test_annotations_of_an_image_keep_their_order_in_the_file(open_source, content):
    content["annotations"] = [
        annotation(number, image_id=1 + number % 2, bbox=[number, 0, 5, 5]) for number in range(1, 9)
    ]
    source = open_source(content)
    assert source[0].boxes_xyxy[:, 0].tolist() == [2, 4, 6, 8]
    assert source[1].boxes_xyxy[:, 0].tolist() == [1, 3, 5, 7]


def test_crowds_are_ground_truth_but_not_learned(open_source, content):
    content["annotations"].append(annotation(2, iscrowd=1, bbox=[0, 0, 50, 30]))
    source = open_source(content)
    assert len(source[0].boxes_xyxy) == 1
    assert [record["iscrowd"] for record in source.ground_truth()["annotations"]] == [0, 1]


def test_ground_truth_fills_in_area_and_iscrowd_and_numbers_from_one(open_source, content):
    content["annotations"] = [{"id": 0, "image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4]}]
    assert open_source(content).ground_truth()["annotations"] == [
        {"id": 1, "image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    ]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"image_id": 99}, problems.UNKNOWN_IMAGE),
        ({"image_id": None}, problems.UNKNOWN_IMAGE),
        ({"image_id": [1]}, problems.UNKNOWN_IMAGE),
        ({"category_id": {}}, problems.UNKNOWN_CATEGORY),
        ({"category_id": 8}, problems.UNKNOWN_CATEGORY),
        ({"bbox": [10, 10, 0, 5]}, problems.NO_SIZE),
        ({"bbox": [10, 10, 5, -3]}, problems.NO_SIZE),
        ({"bbox": [10, 10, float("nan"), 5]}, problems.NOT_FOUR_NUMBERS),
        ({"bbox": [float("inf"), 10, 5, 5]}, problems.NOT_FOUR_NUMBERS),
        ({"bbox": [10, 10, 5]}, problems.NOT_FOUR_NUMBERS),
        ({"bbox": [10, 10, 5, "5"]}, problems.NOT_FOUR_NUMBERS),
        ({"bbox": None}, problems.NOT_FOUR_NUMBERS),
        ({"bbox": [60, 10, 5, 5]}, problems.OUTSIDE),
        ({"bbox": [10, -5, 5, 5]}, problems.OUTSIDE),
        ({"area": 0}, problems.NO_AREA),
        ({"area": float("nan")}, problems.NO_AREA),
    ],
)
def test_a_bad_annotation_is_one_problem_and_is_left_out(open_source, content, changes, kind):
    content["annotations"].append(annotation(17, **changes))
    source = open_source(content)
    (problem,) = source.problems
    assert problem.kind == kind
    assert problem.record == "annotation 17"
    assert problem.file.endswith("train.json")
    assert problem.action == "annotation left out"
    assert len(source[0].boxes_xyxy) == 1
    assert len(source.ground_truth()["annotations"]) == 1


_TRIANGLE = [[10, 5, 30, 5, 20, 25]]
_RUNS = {"size": [HEIGHT, WIDTH], "counts": [10 * HEIGHT + 5, 20, HEIGHT * (WIDTH - 10) - 25]}


@pytest.mark.parametrize("bbox", [[0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0], [7, 7, 0, 0]])
@pytest.mark.parametrize(("segmentation", "box"), [(_TRIANGLE, [10, 5, 20, 20]), (_RUNS, [10, 5, 1, 20])])
def test_an_empty_bbox_beside_a_segmentation_is_replaced_by_its_box(open_source, content, bbox, segmentation, box):
    content["annotations"] = [annotation(3, bbox=bbox, segmentation=segmentation)]
    source = open_source(content)
    assert source.ground_truth()["annotations"][0]["bbox"] == box
    (problem,) = source.problems
    assert problem.kind == problems.EMPTY_BBOX and problem.record == "annotation 3" and problem.num_left_out == 0
    assert str(bbox) in problem.found and "segmentation" in problem.action


@pytest.mark.parametrize(
    "changes",
    [
        *({"bbox": [0, 0, 0, 0], "segmentation": none} for none in (None, [], [[1, 1, 1, 1, 1, 1]])),
        {"bbox": [5, 5, 10, 0], "segmentation": _TRIANGLE},  # states a width, so it is no placeholder
    ],
)
def test_an_empty_bbox_without_a_segmentation_of_any_extent_is_left_out(open_source, content, changes):
    content["annotations"].append(annotation(3, **changes))
    source = open_source(content)
    assert source.num_boxes(0) == 1
    assert [problem.kind for problem in source.problems] == [problems.NO_SIZE]


@pytest.mark.parametrize(
    ("bbox", "clipped"),
    [([50, 10, 11.5, 5], [50, 10, 60, 15]), ([-4, 10, 9, 5], [0, 10, 5, 15]), ([0, 38, 5, 9], [0, 38, 5, 40])],
)
def test_a_box_partly_outside_is_clipped_for_training_and_kept_in_the_ground_truth(open_source, content, bbox, clipped):
    content["annotations"] = [annotation(3, bbox=bbox)]
    source = open_source(content)
    assert [problem.kind for problem in source.problems] == [problems.PARTLY_OUTSIDE]
    assert source.problems[0].action == "clipped for training"
    assert source[0].boxes_xyxy.tolist() == [clipped]
    assert source.ground_truth()["annotations"][0]["bbox"] == bbox


def test_a_box_a_pixel_outside_is_clipped_without_a_report(open_source, content):
    content["annotations"] = [annotation(3, bbox=[-1, -1, 62, 42])]
    source = open_source(content)
    assert source.problems == []
    assert source[0].boxes_xyxy.tolist() == [[0, 0, WIDTH, HEIGHT]]


def test_a_missing_image_is_one_problem_and_its_annotations_are_left_out(open_source, content):
    content["images"].insert(0, {"id": 5, "file_name": "sub/gone.png", "width": 9, "height": 9})
    content["annotations"] += [annotation(2, image_id=5), annotation(3, image_id=5, bbox=[1, 1, 0, 0])]
    source = open_source(content)
    (problem,) = source.problems
    assert (problem.kind, problem.record) == (problems.MISSING_FILE, "image 5")
    assert problem.found.endswith("sub/gone.png")
    assert [image["id"] for image in source.ground_truth()["images"]] == [1, 2]
    assert [record["image_id"] for record in source.ground_truth()["annotations"]] == [1]
    assert source[0].boxes_xyxy.tolist() == [[10, 10, 30, 15]]


def test_a_file_name_may_be_spelled_in_another_way(open_source, content):
    content["images"][0]["file_name"], content["images"][1]["file_name"] = "A.PNG", "sub\\b.png"
    source = open_source(content)
    assert [int(source[index].image.mean()) for index in range(2)] == [50, 60]
    assert source.problems == []


def test_the_log_has_ten_lines_per_kind_and_one_with_the_rest(open_source, content, caplog):
    content["annotations"] += [annotation(number, category_id=8) for number in range(2, 15)]
    content["annotations"].append(annotation(99, bbox=[0, 0, 0, 0]))
    with caplog.at_level(logging.WARNING, "yolox_jax.data"):
        assert len(open_source(content).problems) == 14
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 12
    assert "annotation 2:" in lines[0]
    assert "category_id 8" in lines[0]
    assert lines[10].endswith("3 more like these")
    assert problems.NO_SIZE in lines[11]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["images"].append(content["images"][0]), "image id 1 occurs twice"),
        (lambda content: content["categories"].append(content["categories"][0]), "category id 90 occurs twice"),
        (lambda content: content.pop("images"), "no list of records 'images'"),
        (lambda content: content.pop("annotations"), "no list of records 'annotations'"),
        (lambda content: content.pop("categories"), "no list of records 'categories'"),
        (lambda content: content["categories"].clear(), "lists no category"),
        (lambda content: content["images"][1].pop("width"), "image number 1 has no usable 'width'"),
        (lambda content: content["annotations"].append(3), "no list of records 'annotations'"),
    ],
)
def test_a_file_that_is_not_a_coco_data_set_is_an_error_that_names_it(open_source, content, change, message):
    change(content)
    with pytest.raises(UserError, match=message) as caught:
        open_source(content)
    assert "train.json" in str(caught.value)


def test_invalid_json_is_an_error_that_names_the_file(open_source):
    with pytest.raises(UserError, match=r"train\.json is not valid json"):
        open_source('{"images": [')


def test_a_data_set_without_a_usable_image_is_an_error_with_file_and_folder(open_source, content):
    for image in content["images"]:
        image["file_name"] = "elsewhere/" + image["file_name"]
    with pytest.raises(
        UserError,
        match=r"train\.json \(train\): none of its 2 images is in .*images; .*/images/elsewhere/a\.png: check",
    ):
        open_source(content)


def test_an_image_that_cannot_be_decoded_is_named(open_source, content, tmp_path):
    source = open_source(content)
    (tmp_path / "images" / "a.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"a\.png cannot be decoded"):
        source[0]


def test_an_image_of_another_size_than_the_json_states_is_an_error_with_both_sizes(open_source, content, tmp_path):
    source = open_source(content)
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    with pytest.raises(UserError, match=r"a\.png \(image 1\) is 61x40 pixels but 60x40 in the json"):
        source[0]


@pytest.mark.parametrize("as_stored", [True, False])
def test_an_image_rotated_by_its_exif_is_read_with_the_sides_of_the_json(open_source, content, tmp_path, as_stored):
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[:, : WIDTH // 2] = 255  # the left half as stored, the upper half after EXIF's quarter turn clockwise
    jpeg = cv2.imencode(".jpg", stored)[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    (tmp_path / "images" / "c.jpg").write_bytes(turned)
    width, height = (WIDTH, HEIGHT) if as_stored else (HEIGHT, WIDTH)
    content["images"] = [{"id": 1, "file_name": "c.jpg", "width": width, "height": height}]
    image = open_source(content)[0].image
    assert image.shape == (height, width, 3)
    bright = image[: height // 2 - 8, : width // 2 - 8].mean(), image[height // 2 + 8 :, : width // 2 - 8].mean()
    assert (bright[0] > 200, bright[1] > 200) == (True, as_stored)


def test_encoded_is_the_file(open_source, content, tmp_path):
    assert open_source(content).encoded(1) == (tmp_path / "images" / "sub" / "b.png").read_bytes()
