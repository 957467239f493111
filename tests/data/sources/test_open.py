"""open_split finds the files that config.data names, and names the field of a wrong value."""

import json

import cv2
import numpy as np
import pytest

from yolox_jax.data.sources import class_names
from yolox_jax.data.sources.open import check_classes, open_split
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.errors import NotFoundError, UserError

SHAPES = {"kind": "shapes", "shapes": {"num_train": 5, "num_val": 3, "seed": 0}}
COCO = {
    "kind": "coco",
    "root": "set",
    "train": "train.json",
    "train_images": "images",
    "val": "val.json",
    "val_images": "images",
}


@pytest.fixture
def coco_dir(tmp_path, monkeypatch):
    """A working directory with the data set of `COCO` in it: one image to train, two to validate."""
    (tmp_path / "set" / "images").mkdir(parents=True)
    images = [{"id": number, "file_name": f"{number}.png", "width": 8, "height": 8} for number in (1, 2)]
    for image in images:
        cv2.imwrite(str(tmp_path / "set" / "images" / image["file_name"]), np.zeros((8, 8, 3), np.uint8))
    for name, listed in (("train", images[:1]), ("val", images)):
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
        content = {"images": listed, "annotations": [box], "categories": [{"id": 1, "name": "thing"}]}
        (tmp_path / "set" / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_shapes_splits_have_their_own_numbers_and_pictures():
    train, val = open_split(SHAPES, "train"), open_split(SHAPES, "val")
    assert (len(train), len(val)) == (5, 3)
    assert not np.array_equal(train[0].image[:90, :90], val[0].image[:90, :90])


def test_no_seeds_training_pictures_are_another_seeds_validation_pictures():
    def plans(split, seed):
        source = open_split({"kind": "shapes", "shapes": SHAPES["shapes"] | {"seed": seed}}, split)
        assert isinstance(source, ShapesSource)
        return {tuple(source.plan(index).background) for index in range(len(source))}

    trained, validated = (set().union(*(plans(split, seed) for seed in range(4))) for split in ("train", "val"))
    assert (len(trained), len(validated)) == (20, 12)
    assert not trained & validated


def test_relative_paths_are_under_root_and_root_under_the_working_directory(coco_dir):
    assert len(open_split(COCO, "train")) == 1
    assert len(open_split(COCO, "val")) == 2


def test_absolute_paths_and_an_absolute_root_are_taken_as_they_are(coco_dir, monkeypatch):
    monkeypatch.chdir("/")
    assert len(open_split(COCO | {"root": str(coco_dir / "set")}, "train")) == 1
    absolute = {"root": "nowhere", "val": str(coco_dir / "set/val.json"), "val_images": str(coco_dir / "set/images")}
    assert len(open_split(COCO | absolute, "val")) == 2


def test_a_tilde_is_the_home_folder(coco_dir, monkeypatch):
    monkeypatch.setenv("HOME", str(coco_dir))
    monkeypatch.chdir("/")
    assert len(open_split(COCO | {"root": "~/set"}, "train")) == 1
    assert len(open_split(COCO | {"root": "", "val": "~/set/val.json", "val_images": "~/set/images"}, "val")) == 2


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"config\.data\.kind is 'cocoa': choose one of coco, shapes, tfds, voc, yolo_txt"
    ):
        open_split({"kind": "cocoa"}, "train")


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown split 'test'; known: train, val"):
        open_split(SHAPES, "test")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, r"config\.data\.kind is missing"),
        (COCO | {"train": ""}, r"config\.data\.train is empty"),
        (COCO | {"train_images": None}, r"config\.data\.train_images is empty"),
        ({"kind": "shapes"}, r"config\.data\.shapes is missing"),
        ({"kind": "shapes", "shapes": {"num_val": 3, "seed": 0}}, r"config\.data\.shapes\.num_train is missing"),
        ({"kind": "shapes", "shapes": {"num_train": 0, "seed": 0}}, r"shapes\.num_train is 0: give 1 or more"),
        ({"kind": "shapes", "shapes": {"num_train": 3, "seed": -1}}, r"shapes\.seed is -1: give 0 or more"),
    ],
)
def test_a_missing_or_empty_field_or_a_wrong_number_is_named(data, message):
    with pytest.raises(UserError, match=message):
        open_split(data, "train")


@pytest.mark.parametrize(("field", "wrong"), [("val", "val.jsn"), ("val_images", "image")])
def test_a_path_that_does_not_exist_is_named_with_its_field(coco_dir, field, wrong):
    with pytest.raises(NotFoundError, match=f"config\\.data\\.{field}: .*{coco_dir}/set/{wrong}:"):
        open_split(COCO | {field: wrong}, "val")


@pytest.fixture
def voc_dir(tmp_path, monkeypatch):
    """A working directory with VOCdevkit in it: two folders of one image each."""
    for folder, name in (("VOC2007", "ant"), ("VOC2012", "bee")):
        base = tmp_path / "VOCdevkit" / folder
        for part in ("ImageSets/Main", "JPEGImages", "Annotations"):
            (base / part).mkdir(parents=True)
        cv2.imwrite(str(base / "JPEGImages" / "1.jpg"), np.zeros((8, 8, 3), np.uint8))
        (base / "ImageSets" / "Main" / "trainval.txt").write_text("1\n")
        (base / "Annotations" / "1.xml").write_text(
            "<annotation><size><width>8</width><height>8</height></size>"
            f"<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>8</ymax></bndbox>"
            "</object></annotation>"
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path


VOC = {"kind": "voc", "root": "VOCdevkit", "train": "VOC2007/trainval"}


@pytest.mark.parametrize("lists", ["VOC2007/trainval, VOC2012/trainval", ("VOC2007/trainval", "VOC2012/trainval")])
def test_voc_lists_are_one_string_with_commas_or_a_sequence(voc_dir, lists):
    source = open_split(VOC | {"train": lists}, "train")
    assert [source.image_id(0), source.image_id(1)] == ["VOC2007/1", "VOC2012/1"]
    assert source.class_names == ("ant", "bee")


@pytest.mark.parametrize("names", ["wasp, ant", ["wasp", "ant"]])
def test_class_names_are_one_string_with_commas_or_a_sequence(voc_dir, names):
    source = open_split(VOC | {"class_names": names}, "train")
    assert source.class_names == ("wasp", "ant")
    assert source[0].labels.tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": None}, UserError, r"config\.data\.train is empty"),
        ({"train": " ,"}, UserError, r"config\.data\.train names no list: give FOLDER/SPLIT"),
        ({"train": "trainval"}, UserError, r"config\.data\.train has 'trainval': give FOLDER/SPLIT, such as VOC2007"),
        ({"train": "VOC2007/tranval"}, NotFoundError, r"config\.data\.train: .*VOCdevkit/VOC2007/.*/tranval\.txt"),
        ({"root": "VOC"}, NotFoundError, r"config\.data\.train: .* or config\.data\.root"),
        ({"class_names": "ant,bee,ant"}, UserError, r"config\.data\.class_names has a name twice \(ant, bee, ant\)"),
    ],
)
def test_a_wrong_field_of_voc_is_named(voc_dir, changes, error, message):
    with pytest.raises(error, match=message):
        open_split(VOC | changes, "train")


@pytest.mark.parametrize("part", ["JPEGImages", "Annotations"])
def test_a_voc_folder_without_images_or_annotations_is_named(voc_dir, part):
    (voc_dir / "VOCdevkit" / "VOC2007" / part).rename(voc_dir / "elsewhere")
    with pytest.raises(NotFoundError, match=rf"config\.data\.train: .*/VOC2007 has no folder {part}"):
        open_split(VOC, "train")


def test_a_voc_folder_without_a_named_object_is_an_error_that_names_it(voc_dir):
    xml = voc_dir / "VOCdevkit" / "VOC2007" / "Annotations" / "1.xml"
    xml.write_text(xml.read_text().replace("object", "thing"))
    with pytest.raises(UserError, match=r"no xml in .*/VOCdevkit/VOC2007/Annotations has an object with a name"):
        open_split(VOC, "train")


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (tuple("abcdefg"), tuple("abcdegf"), "class 5 is f in train and g in val"),
        (tuple("abcdefg"), tuple("abcdefh"), "only in train: g; only in val: h"),
        (tuple("abc"), tuple("ab"), r"\(only in train: c\)"),
        (("cat", "dog"), ("cat ", "dog"), r"\(only in train: cat; only in val: 'cat '\)"),
        (tuple("abcdefghij"), ("a",), "only in train: b, c, d, e, f and 4 more"),
    ],
)
def test_two_lists_of_classes_show_how_they_differ(train, val, message):
    with pytest.raises(UserError, match=message):
        check_classes(None, train, val)


@pytest.mark.parametrize("kind", ["coco", "yolo_txt"])
def test_classes_of_one_name_are_an_error_that_names_both_and_are_merged_on_request(tmp_path, kind):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "1.png"), np.zeros((8, 8, 3), np.uint8))
    categories = [{"id": id, "name": name} for id, name in enumerate(("cell", "dot", "cell"))]
    boxes = [{"id": id, "image_id": 1, "category_id": id, "bbox": [2, 2, 4, 4 - id]} for id in range(3)]
    images = [{"id": 1, "file_name": "1.png", "width": 8, "height": 8}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "train.json").write_text(json.dumps(content))
    (tmp_path / "labels" / "1.txt").write_text(
        "".join(f"{id} 0.5 {0.5 - id / 16} 0.5 {0.5 - id / 8}\n" for id in range(3))
    )
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cell, dot, cell]\n")
    data = {"kind": kind, "root": str(tmp_path), "train": "train.json", "train_images": "images"}
    with pytest.raises(
        UserError, match="the classes 0 and 2 are both called 'cell': rename one of them, or set --config"
    ):
        open_split(data, "train")
    source = open_split(data | {"merge_same_names": True}, "train")
    assert source.class_names == ("cell", "dot")
    assert source[0].labels.tolist() == [0, 1, 0]
    truth = source.ground_truth()
    assert [category["name"] for category in truth["categories"]] == ["cell", "dot"]
    names = {category["id"]: category["name"] for category in truth["categories"]}
    assert [names[record["category_id"]] for record in truth["annotations"]] == ["cell", "dot", "cell"]
    assert source.problems == []


def test_names_that_differ_by_spaces_around_them_are_the_same_name():
    names, labels = class_names.merge([" cell", "dot", "cell"])
    assert names == (" cell", "dot") and labels == [0, 1, 0]
    with pytest.raises(UserError, match="file: the classes 4 and 9 are both called 'cell', but for spaces around it: "):
        class_names.check_different(["cell", "dot", "cell "], [4, 5, 9], "file", may_be_alike=False)


@pytest.mark.parametrize("name", ["", " "])
def test_a_class_without_a_name_is_an_error_that_names_it(tmp_path, name):
    categories = [{"id": 1, "name": "cell"}, {"id": 7, "name": name}]
    (tmp_path / "train.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    with pytest.raises(UserError, match=r"train\.json: category number 1 has no usable 'name' .*'id': 7"):
        open_split({"kind": "coco", "root": str(tmp_path), "train": "train.json", "train_images": "."}, "train")
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: [cell, '{name}']\n")
    with pytest.raises(UserError, match=r"data\.yaml: class 1 of names has an empty name"):
        open_split({"kind": "yolo_txt", "root": str(tmp_path)}, "train")


def test_different_classes_of_two_voc_splits_are_an_error_that_says_what_to_do(voc_dir):
    train, val = (open_split(VOC | {"train": f"{folder}/trainval"}, "train") for folder in ("VOC2007", "VOC2012"))
    with pytest.raises(UserError, match=r"only in train: ant; only in val: bee\).*config\.data\.class_names"):
        check_classes(None, train.class_names, val.class_names)


@pytest.fixture
def yolo_dir(tmp_path, monkeypatch):
    """A working directory with a data set in YOLO's format in it, with one training image."""
    (tmp_path / "set" / "images" / "train").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "set" / "images" / "train" / "1.png"), np.zeros((8, 8, 3), np.uint8))
    for name in ("data.yaml", "other.yaml"):
        (tmp_path / "set" / name).write_text(f"train: images/train\nnames: [{name}]\n")
    (tmp_path / "set" / "labels" / "train").mkdir(parents=True)
    (tmp_path / "set" / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_yaml_is_data_yaml_unless_named(yolo_dir):
    data = {"kind": "yolo_txt", "root": "set"}
    assert open_split(data, "train").class_names == ("data.yaml",)
    assert open_split(data | {"yaml": "other.yaml"}, "train").class_names == ("other.yaml",)
    assert open_split(data | {"root": "", "yaml": str(yolo_dir / "set/other.yaml")}, "train").class_names
    with pytest.raises(NotFoundError, match=r"config\.data\.yaml: there is no file .*/set/gone\.yaml"):
        open_split(data | {"yaml": "gone.yaml"}, "train")
