"""Reads Pascal VOC data sets, and reports what is wrong in their files."""

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from yolox_jax.data.images import SizeError
from yolox_jax.data.sources import problems
from yolox_jax.data.sources.voc import VocSource
from yolox_jax.errors import UserError

HEIGHT, WIDTH = 40, 60


def an_object(name="dog", corners=(11, 11, 30, 15), extra="<difficult>0</difficult>"):
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    # The parts of a person have names and boxes too.
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return f"<object><name>{name}</name>{extra}<bndbox>{sides}</bndbox>{part}</object>"


def an_xml(*objects, filename="", size=(WIDTH, HEIGHT)):
    width, height = size
    stated = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{stated}{''.join(objects)}</annotation>"


class Devkit:
    """A VOCdevkit on disk."""

    def __init__(self, root):
        self.root = root

    def add(self, name, *objects, folder="VOC2007", image=None, xml=None, **options):
        """Writes an image and its xml; `image` is the file's name if it is not NAME.jpg."""
        base = self.root / folder
        for part in ("ImageSets/Main", "JPEGImages", "Annotations"):
            (base / part).mkdir(parents=True, exist_ok=True)
        pixels = np.full((HEIGHT, WIDTH, 3), 50, np.uint8)
        cv2.imwrite(str(base / "JPEGImages" / (image or f"{name}.jpg")), pixels)
        (base / "Annotations" / f"{name}.xml").write_text(an_xml(*objects, **options) if xml is None else xml)

    def list(self, *lines, to="VOC2007/trainval"):
        folder, split = to.split("/")
        (self.root / folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(lines) + "\n")

    def open(self, *splits, class_names=None):
        return VocSource(self.root, splits or ("VOC2007/trainval",), class_names)


@pytest.fixture
def devkit(tmp_path):
    return Devkit(tmp_path)


@pytest.fixture
def open_objects(devkit):
    """Returns a function that opens a data set of one image with the given objects."""

    def open_it(*objects, **options):
        devkit.add("000001", *objects, **options)
        devkit.list("000001")
        return devkit.open()

    return open_it


def test_pixels_counted_from_one_with_both_corners_inside_become_xyxy(open_objects):
    example = open_objects(an_object(corners=(11, 12, 30, 15)), an_object("cat", corners=(1, 1, WIDTH, HEIGHT)))[0]
    assert example.boxes_xyxy.tolist() == [[10, 11, 30, 15], [0, 0, WIDTH, HEIGHT]]
    assert [("cat", "dog")[label] for label in example.labels] == ["dog", "cat"]
    assert (example.boxes_xyxy.dtype, example.labels.dtype) == (np.float32, np.int32)
    assert example.image.shape == (HEIGHT, WIDTH, 3)


def test_corners_may_be_fractions(open_objects):
    source = open_objects(an_object(corners=(11.5, 12.25, 30.75, 15)))
    assert source[0].boxes_xyxy.tolist() == [[10.5, 11.25, 30.75, 15]]
    assert source.problems == []


def test_images_are_in_the_lists_order_and_one_without_objects_is_kept(devkit):
    devkit.add("b", an_object())
    devkit.add("a")
    devkit.list("b", "", "a")
    source = devkit.open()
    assert (len(source), source.image_id(0), source.image_id(1)) == (2, "b", "a")
    assert (source.num_boxes(0), source.num_boxes(1)) == (1, 0)
    assert source[1].boxes_xyxy.shape == (0, 4)
    assert source[1].image_id == "a"
    with pytest.raises(IndexError, match="image 2 of 2"):
        source[2]


def test_the_list_of_a_class_is_read_by_its_first_column(devkit):
    for name in ("a", "b", "c d"):
        devkit.add(name)
    devkit.list("a -1", "b  1", "c d  0", to="VOC2007/dog_train")
    source = devkit.open("VOC2007/dog_train")
    assert [source.image_id(index) for index in range(3)] == ["a", "b", "c d"]


@pytest.mark.parametrize(
    ("names", "lines", "split", "expected"),
    [
        (["photo", "photo 1", "cup 0"], ["photo", "photo 1", "cup 0"], "train", ["photo", "photo 1", "cup 0"]),
        (["cup 0", "cup 1"], ["cup 1", "cup 0"], "cup_train", ["cup 1", "cup 0"]),
        (["photo", "photo 1"], ["photo 1"], "train", ["photo 1"]),
        (["photo", "photo 1"], ["photo -1", "photo 1  1"], "cup_train", ["photo", "photo 1"]),
        (["photo", "photo 1"], ["photo 1", "photo 1 1"], "cup_train", ["photo", "photo 1"]),
        (["my photo", "a  b"], [" my photo ", "a  b\t"], "train", ["my photo", "a  b"]),
        (["my photo"], ["my photo  0"], "train", ["my photo"]),
    ],
)
def test_a_name_may_end_in_a_number_and_have_spaces(devkit, names, lines, split, expected):
    for name in names:
        devkit.add(name, an_object())
    devkit.list(*lines, to=f"VOC2007/{split}")
    source = devkit.open(f"VOC2007/{split}")
    assert [source.image_id(index) for index in range(len(source))] == expected
    assert source.problems == []


def test_xml_in_a_namespace_is_read(devkit):
    devkit.add("1", xml=an_xml(an_object()).replace("<annotation>", '<annotation xmlns="urn:x">'))
    devkit.list("1")
    source = devkit.open()
    assert (source.class_names, source[0].boxes_xyxy.tolist()) == (("dog",), [[10, 10, 30, 15]])


def test_ids_include_the_folder_if_there_are_several(devkit):
    for folder in ("VOC2007", "VOC2012"):
        devkit.add("1", an_object(), folder=folder)
        devkit.list("1", to=f"{folder}/trainval")
    source = devkit.open("VOC2007/trainval", "VOC2012/trainval")
    assert [source.image_id(0), source[1].image_id] == ["VOC2007/1", "VOC2012/1"]
    assert [image["id"] for image in source.ground_truth()["images"]] == ["VOC2007/1", "VOC2012/1"]


def test_difficult_boxes_are_learned_and_are_crowds_in_the_ground_truth(open_objects):
    difficult = an_object("cat", corners=(1, 1, 5, 5), extra="<difficult>1</difficult>")
    source = open_objects(an_object(extra=""), difficult)
    assert len(source[0].boxes_xyxy) == source.num_boxes(0) == 2
    truth = source.ground_truth()
    assert [box["iscrowd"] for box in truth["annotations"]] == [0, 1]
    cat, dog = 1, 2
    assert truth["annotations"][1] == {
        "id": 2,
        "image_id": "000001",
        "category_id": cat,
        "bbox": [0, 0, 5, 5],
        "area": 25,
        "iscrowd": 1,
    }
    assert truth["categories"][dog - 1] == {"id": dog, "name": "dog"}


def test_names_are_sorted_and_agree_between_the_splits_of_a_folder(devkit):
    devkit.add("1", an_object("zebra"))
    devkit.add("2", an_object("ant"), an_object("dog"))
    devkit.list("1", to="VOC2007/train")
    devkit.list("2", to="VOC2007/val")
    train, val = devkit.open("VOC2007/train"), devkit.open("VOC2007/val")
    assert train.class_names == val.class_names == ("ant", "dog", "zebra")
    assert train[0].labels.tolist() == [2]


def test_a_data_set_may_have_one_class(open_objects):
    source = open_objects(an_object("cell"))
    assert source.class_names == ("cell",)
    assert source[0].labels.tolist() == [0]


def test_given_class_names_decide_labels_and_leave_the_rest_out(devkit):
    devkit.add("1", an_object("dog"), an_object("cat"), an_object("cow"))
    devkit.list("1")
    source = devkit.open(class_names=["dog", "cat"])
    assert source.class_names == ("dog", "cat")
    assert source[0].labels.tolist() == [0, 1]
    (problem,) = source.problems
    assert (problem.kind, problem.record) == (problems.UNKNOWN_CATEGORY, "object 3 (cow)")
    assert problem.file == str(devkit.root / "VOC2007" / "Annotations" / "1.xml")


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        (an_object("dog", corners=(10, 10, 9, 15)), problems.NO_SIZE),
        (an_object("dog", corners=(10, 10, 20, 5)), problems.NO_SIZE),
        (an_object("dog", corners=(61, 10, 70, 15)), problems.OUTSIDE),
        (an_object("dog", corners=("ten", 10, 20, 15)), problems.NOT_FOUR_NUMBERS),
        (an_object("dog", corners=("", 10, 20, 15)), problems.NOT_FOUR_NUMBERS),
        (an_object("dog", corners=("nan", 10, 20, 15)), problems.NOT_FOUR_NUMBERS),
        (an_object("dog", corners=(1, 1, "inf", 15)), problems.NOT_FOUR_NUMBERS),
        ("<object><name>dog</name></object>", problems.NOT_FOUR_NUMBERS),
    ],
)
def test_a_bad_box_is_one_problem_and_is_left_out(open_objects, changed, kind):
    source = open_objects(an_object("cat"), changed)
    (problem,) = source.problems
    assert (problem.kind, problem.record, problem.action) == (kind, "object 2 (dog)", "object left out")
    assert problem.file.endswith("000001.xml")
    assert len(source[0].boxes_xyxy) == len(source.ground_truth()["annotations"]) == source.num_boxes(0) == 1


def test_a_box_partly_outside_is_clipped_for_training_and_kept_in_the_ground_truth(open_objects):
    source = open_objects(an_object(corners=(-3, 11, 70, 20)))
    assert [problem.kind for problem in source.problems] == [problems.PARTLY_OUTSIDE]
    assert source[0].boxes_xyxy.tolist() == [[0, 10, WIDTH, 20]]
    assert source.ground_truth()["annotations"][0]["bbox"] == [-4, 10, 74, 10]


def test_a_box_of_a_tool_that_counts_from_zero_is_clipped_without_a_report(open_objects):
    source = open_objects(an_object(corners=(0, 0, WIDTH, HEIGHT)))
    assert source.problems == []
    assert source[0].boxes_xyxy.tolist() == [[0, 0, WIDTH, HEIGHT]]


def test_boxes_in_fractions_of_the_image_are_refused(devkit):
    devkit.add("000001", an_object(corners=(0.1, 0.2, 0.9, 0.8)), an_object(corners=(0, 0, 1, 1)))
    devkit.list("000001")
    with pytest.raises(UserError, match="VOC2007/trainval: all 2 boxes lie within the first pixel of their image"):
        devkit.open()


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ("<name>cat</name>", "name"),
        ("<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>31</xmax><ymax>15</ymax></bndbox>", "xmax"),
        ("<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>15</ymax></bndbox><name>dog</name>", None),
    ],
)
def test_an_object_with_two_names_or_boxes_is_a_problem_unless_they_are_equal(open_objects, extra, field):
    source = open_objects(an_object(), an_object(extra=extra))
    found = [(each.kind, each.found) for each in source.problems]
    assert found == ([(problems.REPEATED_FIELD, field)] if field else [])
    assert source.num_boxes(0) == (1 if field else 2)


def test_a_difficult_flag_that_is_not_0_or_1_is_a_problem_and_the_box_is_kept(open_objects):
    source = open_objects(an_object(extra="<difficult>maybe</difficult>"))
    assert [problem.kind for problem in source.problems] == [problems.NOT_A_FLAG]
    assert source.ground_truth()["annotations"][0]["iscrowd"] == 0


@pytest.mark.parametrize("size", [(0, 0), ("", ""), ("wide", 40)])
def test_the_size_is_the_images_own_if_the_xml_has_none(open_objects, size):
    source = open_objects(an_object(corners=(11, 11, 90, 30)), size=size)
    assert [problem.kind for problem in source.problems] == [problems.NO_IMAGE_SIZE, problems.PARTLY_OUTSIDE]
    assert source[0].boxes_xyxy.tolist() == [[10, 10, WIDTH, 30]]
    assert source.ground_truth()["images"][0]["width"] == WIDTH


def test_an_image_without_a_known_size_is_left_out(devkit):
    devkit.add("1", size=(0, 0))
    devkit.add("2")
    devkit.list("1", "2")
    (devkit.root / "VOC2007" / "JPEGImages" / "1.jpg").write_bytes(b"not a picture")
    source = devkit.open()
    assert [source.image_id(index) for index in range(len(source))] == ["2"]
    assert "1.jpg cannot be decoded" in source.problems[0].action


@pytest.mark.parametrize(
    ("missing", "kind"),
    [("JPEGImages/1.jpg", problems.MISSING_FILE), ("Annotations/1.xml", problems.MISSING_ANNOTATIONS)],
)
def test_an_image_without_its_file_or_its_xml_is_one_problem_and_left_out(devkit, missing, kind):
    devkit.add("1", an_object())
    devkit.add("2", an_object("cat"))
    devkit.list("1", "2")
    os.remove(devkit.root / "VOC2007" / missing)
    source = devkit.open()
    (problem,) = source.problems
    assert (problem.kind, problem.record) == (kind, "line 1")
    assert problem.file.endswith("trainval.txt")
    assert problem.found.endswith(missing)
    assert source[0].image_id == "2"
    assert source.class_names[source[0].labels[0]] == "cat"


@pytest.mark.parametrize("text", ["<annotation><object>", "", '<?xml version="1.0" encoding="no-such"?><annotation/>'])
def test_an_xml_that_cannot_be_read_is_one_problem_that_names_it(devkit, text):
    devkit.add("1", xml=text)
    devkit.add("2")
    devkit.list("1", "2")
    source = devkit.open()
    (problem,) = source.problems
    assert problem.kind == problems.UNREADABLE_ANNOTATIONS
    assert problem.file.endswith("1.xml")
    assert len(source) == 1


def test_an_image_listed_twice_is_used_once(devkit):
    devkit.add("1", an_object())
    devkit.list("1", "1")
    source = devkit.open()
    assert len(source) == 1
    assert [(problem.kind, problem.record) for problem in source.problems] == [(problems.REPEATED_IMAGE, "line 2")]


def test_lists_without_a_usable_image_are_an_error_that_names_them(devkit):
    devkit.add("1")
    devkit.list("2", "3")
    with pytest.raises(UserError, match=r"VOC2007/trainval in .*: none of the 2 listed images has"):
        devkit.open()


def test_the_image_file_may_have_the_name_that_the_xml_states(open_objects):
    source = open_objects(an_object(), image="photo.png", filename="photo.png")
    assert source.problems == []
    assert (source[0].image == 50).all()
    assert source.encoded(0).startswith(b"\x89PNG")


def test_encoded_is_the_file(devkit):
    devkit.add("1")
    devkit.list("1")
    assert devkit.open().encoded(0) == (devkit.root / "VOC2007" / "JPEGImages" / "1.jpg").read_bytes()


def test_an_image_of_another_size_than_the_xml_states_is_an_error_with_both_sizes(open_objects):
    source = open_objects(size=(WIDTH + 1, HEIGHT))
    with pytest.raises(SizeError, match=r"000001\.jpg \(image 000001\) is 60x40 pixels but 61x40 in its xml"):
        source[0]


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, WIDTH)])
def test_an_image_rotated_by_its_exif_is_read_with_the_sides_of_the_xml(devkit, size):
    devkit.add("1", size=size)
    devkit.list("1")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(stream, "JPEG", exif=exif)
    (devkit.root / "VOC2007" / "JPEGImages" / "1.jpg").write_bytes(stream.getvalue())
    assert devkit.open()[0].image.shape == (size[1], size[0], 3)
