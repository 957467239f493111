"""Annotation files that would hang a program or take its memory are one message with the file's name."""

import json

import cv2
import numpy as np
import pytest

from yolox_jax.data.sources.open import open_split, open_unchecked
from yolox_jax.errors import UserError


@pytest.fixture
def picture(tmp_path):
    """An image at images/a.png below the folder that is returned."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((20, 30, 3), np.uint8))
    return tmp_path


def _open_coco(folder, text):
    (folder / "train.json").write_text(text)
    return open_split({"kind": "coco", "root": str(folder), "train": "train.json", "train_images": "images"}, "train")


def _coco(**changes):
    image = {"id": 1, "file_name": "a.png", "width": 30, "height": 20}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    categories = changes.pop("categories", [{"id": 1, "name": changes.pop("name", "cat")}])
    image |= {key: value for key, value in changes.items() if key in image}
    box |= {key: value for key, value in changes.items() if key not in image}
    return json.dumps({"images": [image], "annotations": [box], "categories": categories})


_LONG = 10**400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "train.json is nested too deeply"),
        (_coco(width=_LONG), "image number 0 has no usable 'width'"),
        (_coco(width=-30), "image number 0 has no usable 'width'"),
        (_coco(categories=[{"id": _LONG, "name": "cat"}]), "category number 0 has no usable 'id'"),
        (_coco(width=True), "image number 0 has no usable 'width'"),
        (_coco(id=True, categories=[{"id": True, "name": "cat"}]), "category number 0 has no usable 'id'"),
        ('{"images": [], "images": [1]}', "train.json has 'images' with two values in one object"),
        (_coco(name="\ud800"), r"train.json has the text '\\ud800', which no file or terminal can store"),
        (_coco(file_name="a\0.png"), "train.json has the text .*, which no file or terminal can store"),
        (
            _coco(categories=[{"id": id, "name": f"class {id}"} for id in range(20_001)], category_id=0),
            "the data set has 20001 classes: 20000 at most fit",
        ),
    ],
)
def test_a_coco_json_of_that_kind_is_one_message(picture, text, message):
    with pytest.raises(UserError, match=message):
        _open_coco(picture, text)


@pytest.mark.parametrize(
    "changes",
    [
        *({"bbox": [1, 2, _LONG, 4]}, {"area": _LONG}, {"category_id": _LONG}),
        *({"bbox": [True, 2, 3, 4]}, {"area": True}, {"category_id": True}, {"image_id": True}),
        {"bbox": None, "segmentation": {"size": [20, True], "counts": [3, 2]}},
    ],
)
def test_a_number_of_400_digits_or_a_truth_value_in_an_annotation_is_one_of_its_problems(picture, changes):
    with pytest.raises(UserError, match=r"not one of the 1 annotations can be used \(1: "):
        _open_coco(picture, _coco(**changes))


def test_boxes_in_fractions_of_the_image_are_refused(picture):
    fractions = {"bbox": [0.25, 0.1, 0.75, 0.5]}
    with pytest.raises(UserError, match=r"train\.json: all 1 boxes lie within the first pixel of their image"):
        _open_coco(picture, _coco(**fractions))
    for pixels in ([0, 0, 1, 1], [0.25, 0.1, 0.8, 0.5]):
        assert len(_open_coco(picture, _coco(bbox=pixels))[0].boxes_xyxy) == 1


def test_a_file_that_is_listed_as_two_images_is_reported(picture):
    content = json.loads(_coco())
    content["images"].append(content["images"][0] | {"id": 2})
    source = _open_coco(picture, json.dumps(content))
    (problem,) = source.problems
    assert (problem.kind, problem.record) == ("image is listed more than once", "image 2") and len(source) == 2


def test_a_pointer_of_git_lfs_is_named_so(picture):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    with pytest.raises(UserError, match=r"train\.json cannot be read \(it is a pointer of Git LFS; git lfs pull gets"):
        _open_coco(picture, pointer)
    (picture / "images" / "a.png").write_text(pointer)
    with pytest.raises(UserError, match=r"a\.png cannot be read \(it is a pointer of Git LFS"):
        _open_coco(picture, _coco())[0]


def test_a_name_as_long_as_a_file_is_cut_in_messages(picture):
    with pytest.raises(UserError, match="x … x") as refused:
        _open_coco(picture, _coco(file_name="x" * 1_000_000))
    (problem,) = refused.value.problems
    assert len(str(refused.value)) < 1100 and str(refused.value).endswith("file_name in the json is relative to it")
    assert len(str(problem)) < 1100 and str(problem).endswith("image and its annotations left out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: &a [x]\ntrain: [*a, *a]", "data.yaml repeats a list or a mapping by an alias in line 2"),
        ("[" * 10_000, "data.yaml is nested too deeply"),
        ('train: images\nnames: ["\\ud800"]', "data.yaml has the text .*, which no file or terminal can store"),
        (f"train: images\nnames: [x]\nnc: {_LONG}", r"data.yaml: nc is '10+\.\.\.0+', but names has 1"),
    ],
)
def test_a_yaml_of_that_kind_is_one_message(picture, text, message):
    (picture / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        open_split({"kind": "yolo_txt", "root": str(picture)}, "train")


def test_an_xml_with_entities_is_a_problem_of_its_image(picture):
    for folder, name, text in (
        ("ImageSets/Main", "train.txt", "a\nb\n"),
        ("Annotations", "a.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>"),
        ("Annotations", "b.xml", "<annotation><size><width>30</width><height>20</height></size></annotation>"),
    ):
        (picture / folder).mkdir(parents=True, exist_ok=True)
        (picture / folder / name).write_text(text)
    (picture / "images").rename(picture / "JPEGImages")
    for name in "ab":
        cv2.imwrite(str(picture / "JPEGImages" / f"{name}.jpg"), np.zeros((20, 30, 3), np.uint8))
    data = {"kind": "voc", "root": str(picture.parent), "train": f"{picture.name}/train", "class_names": "cat"}
    source = open_unchecked(data, "train")
    assert len(source) == 1
    assert [problem.kind for problem in source.problems] == ["annotation file cannot be read"]
