"""Reads data sets in YOLO's txt format, and reports what is wrong in their files."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from yolox_jax.data.images import ImageError
from yolox_jax.data.sources import problems
from yolox_jax.data.sources.yolo_txt import YoloTxtSource
from yolox_jax.errors import UserError

HEIGHT, WIDTH = 40, 60
NAMES = "names: [cat, dog]\n"
YAML = f"train: images/train\nval: images/val\n{NAMES}"
LINE = "1 0.5 0.5 0.25 0.5"  # xyxy 22.5, 10, 37.5, 30


class Folder:
    """A data set on disk: images/…/NAME.png and labels/…/NAME.txt."""

    def __init__(self, root):
        self.root = root

    def add(self, name, *lines):
        """Writes an image and its labels; without lines, no label file."""
        image = self.root / "images" / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.full((HEIGHT, WIDTH, 3), 50, np.uint8))
        if lines:
            self.write(f"labels/{name}.txt", "\n".join(lines))

    def write(self, name, text):
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def open(self, yaml=YAML, split="train", file="data.yaml"):
        self.write(file, yaml)
        return YoloTxtSource(self.root / file, split)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def ids(source):
    return [source.image_id(index) for index in range(len(source))]


def test_normalized_boxes_become_pixels_of_the_image(folder):
    folder.add("train/a", LINE, "", "0 0.5 0.5 1 1")
    source = folder.open()
    example = source[0]
    assert example.boxes_xyxy.tolist() == [[22.5, 10, 37.5, 30], [0, 0, WIDTH, HEIGHT]]
    assert example.labels.tolist() == [1, 0]
    assert (example.boxes_xyxy.dtype, example.labels.dtype) == (np.float32, np.int32)
    assert (example.image == 50).all()
    assert (source.class_names, source.num_boxes(0), source.problems) == (("cat", "dog"), 2, [])
    with pytest.raises(IndexError, match="image 1 of 1"):
        source[1]


def test_a_polygon_is_its_bounding_box(folder):
    folder.add("train/a", "0 0.5 0.25 0.75 0.5 0.25 0.75")
    assert folder.open()[0].boxes_xyxy.tolist() == [[15, 10, 45, 30]]


def test_images_are_in_order_of_path_and_those_without_labels_are_kept(folder):
    folder.add("train/sub/c", LINE)
    folder.add("train/b", LINE)
    folder.add("train/a")
    folder.add("train/d", "", "")
    folder.add("val/e", LINE)
    source = folder.open()
    assert ids(source) == [f"images/train/{name}.png" for name in ("a", "b", "d", "sub/c")]
    assert [source.num_boxes(index) for index in range(4)] == [0, 1, 0, 1]
    assert source[0].boxes_xyxy.shape == (0, 4)
    assert source[3].image_id == "images/train/sub/c.png"
    assert source.problems == []
    assert ids(folder.open(split="val")) == ["images/val/e.png"]


def test_only_the_last_folder_named_images_in_a_path_becomes_labels(tmp_path):
    folder = Folder(tmp_path / "images" / "set")
    folder.add("images/train/a", LINE)
    (folder.root / "images" / "images" / "train").rename(folder.root / "images" / "train")
    folder.write("labels/train/a.txt", LINE)
    assert folder.open()[0].labels.tolist() == [1]


def test_labels_are_beside_images_that_are_not_in_a_folder_named_images(folder):
    folder.add("a")
    (folder.root / "images").rename(folder.root / "photos")
    folder.write("photos/a.txt", LINE)
    source = folder.open(f"train: photos\n{NAMES}")
    assert source[0].labels.tolist() == [1]
    assert source.problems == []


@pytest.mark.parametrize("names", ["names: {0: cat, 1: dog}", "names: {1: dog, 0: cat}", "names:\n- cat\n- dog\nnc: 2"])
def test_names_are_a_list_or_a_mapping_by_id(folder, names):
    folder.add("train/a", LINE)
    assert folder.open(f"train: images/train\n{names}\n").class_names == ("cat", "dog")


def test_a_class_may_be_called_no_or_one(folder):
    folder.add("train/a", "0 0.5 0.5 1 1")
    assert folder.open("train: images/train\nnames: [no, 1]\n").class_names == ("no", "1")


def test_a_data_set_may_have_one_class(folder):
    folder.add("train/a", "0 0.5 0.5 1 1")
    source = folder.open("train: images/train\nnames: [cell]\nnc: 1\n")
    assert (source.class_names, source[0].labels.tolist()) == (("cell",), [0])


@pytest.mark.parametrize("key", ["val", "valid"])
def test_the_validation_split_has_two_names(folder, key):
    folder.add("val/a", LINE)
    assert len(folder.open(f"{key}: images/val\n{NAMES}", "val")) == 1


def test_path_is_relative_to_the_yaml_and_ids_are_relative_to_path(folder):
    folder.add("train/a", LINE)
    source = folder.open(f"path: ..\ntrain: images/train\n{NAMES}", file="yaml/data.yaml")
    assert ids(source) == ["images/train/a.png"]
    absolute = folder.open(f"path: {folder.root}/images\ntrain: train\n{NAMES}", file="yaml/data.yaml")
    assert ids(absolute) == ["train/a.png"]


def test_a_folder_beside_the_yaml_may_be_named_as_in_the_parent_folder(folder):
    """As Roboflow's exports name it."""
    folder.add("train/a", LINE)
    assert ids(folder.open(f"train: ../images/train\n{NAMES}")) == ["images/train/a.png"]


def test_a_list_may_have_paths_relative_to_path_or_to_its_own_folder(folder):
    for name in ("train/a", "train/b", "train/c"):
        folder.add(name, LINE)
    absolute = folder.root / "images/train/c.png"
    folder.write("lists/train.txt", f"./images/train/b.png\n\n../images/train/a.png\n{absolute}\n")
    source = folder.open(f"train: lists/train.txt\n{NAMES}")
    assert ids(source) == [f"images/train/{name}.png" for name in "abc"]
    assert source.problems == []


def test_a_split_may_be_several_folders_and_lists(folder):
    for name in ("train/a", "more/b", "val/c"):
        folder.add(name, LINE)
    folder.write("list.txt", "images/val/c.png\nimages/more/b.png\n")
    source = folder.open(f"train: [images/train, images/more, list.txt]\n{NAMES}")
    assert ids(source) == ["images/more/b.png", "images/train/a.png", "images/val/c.png"]


def test_faults_of_a_list_are_problems_with_their_lines(folder):
    folder.add("train/a", LINE)
    folder.write("list.txt", "images/train/a.png\nimages/train/gone.png\nimages/train/a.png\n")
    source = folder.open(f"train: list.txt\n{NAMES}")
    assert [(problem.kind, problem.record) for problem in source.problems] == [
        (problems.MISSING_FILE, "line 2"),
        (problems.REPEATED_IMAGE, "line 3"),
    ]
    assert all(problem.file.endswith("list.txt") for problem in source.problems)
    assert len(source) == 1


def test_other_files_among_the_images_are_problems_but_hidden_ones_are_not(folder):
    folder.add("train/a", LINE)
    folder.add("train/.ipynb_checkpoints/a", LINE)
    folder.write("images/train/a.npy", "")
    folder.write("images/train/b.heic", "")
    folder.write("labels/train/b.txt", LINE)
    folder.write("images/train/._a.png", "")
    source = folder.open()
    assert ids(source) == ["images/train/a.png"]
    assert sorted((problem.found, problem.kind) for problem in source.problems) == [
        ("a.npy", problems.NOT_AN_IMAGE),
        ("b.heic", problems.UNKNOWN_FORMAT),
    ]


@pytest.mark.parametrize("space", ["\f", "\v", "\x1c", "\x85", "\u2028"])
def test_only_line_ends_end_a_line(folder, space):
    folder.add("train/a", LINE.replace(" ", space, 1), "x")
    source = folder.open()
    assert source.num_boxes(0) == 1
    assert [problem.record for problem in source.problems] == ["line 2"]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("cat 0.5 0.5 0.25 0.5", problems.NOT_NUMBERS),
        ("0 0.5 0.5 0.25 wide", problems.NOT_NUMBERS),
        ("0,0.5,0.5,0.25,0.5", problems.NOT_NUMBERS),
        ("0 0.5 0.5 nan 0.5", problems.NOT_NUMBERS),
        ("0 0.5 0.5 inf 0.5", problems.NOT_NUMBERS),
        ("2 0.5 0.5 0.25 0.5", problems.UNKNOWN_CATEGORY),
        ("-1 0.5 0.5 0.25 0.5", problems.UNKNOWN_CATEGORY),
        ("0.5 0.5 0.5 0.25 0.5", problems.UNKNOWN_CATEGORY),
        ("0 30 20 15 20", problems.NOT_NORMALISED),
        ("0 0.5 -0.5 0.25 0.5", problems.NOT_NORMALISED),
        ("0 0.1 0.1 0.9 0.1 5 0.9", problems.NOT_NORMALISED),
        ("0 0.5 0.5 0 0.5", problems.NO_SIZE),
        ("0 0.5 0.5 0.25 0", problems.NO_SIZE),
        ("0 0.1 0.1 0.1 0.5 0.1 0.9", problems.NO_SIZE),
        ("0 1.005 0.5 0.005 0.5", problems.OUTSIDE),
        ("0", problems.NOT_A_BOX),
        ("0 0.5 0.5 0.25", problems.NOT_A_BOX),
        ("0 0.5 0.5 0.25 0.5 0.9", problems.NOT_A_BOX),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9 0.5", problems.NOT_A_BOX),
    ],
)
def test_a_bad_line_is_one_problem_with_file_and_line_and_is_left_out(folder, line, kind):
    folder.add("train/a", LINE, "", line)
    source = folder.open()
    (problem,) = source.problems
    assert (problem.kind, problem.record, problem.found) == (kind, "line 3", line)
    assert problem.file == str(folder.root / "labels/train/a.txt")
    assert problem.action == "line left out"
    assert len(source[0].boxes_xyxy) == source.num_boxes(0) == len(source.ground_truth()["annotations"]) == 1


def test_a_box_partly_outside_is_clipped_for_training_and_kept_in_the_ground_truth(folder):
    folder.add("train/a", "0 0.75 0.5 1 0.5")
    source = folder.open()
    assert [(problem.kind, problem.action) for problem in source.problems] == [
        (problems.PARTLY_OUTSIDE, "clipped for training")
    ]
    assert source[0].boxes_xyxy.tolist() == [[15, 10, WIDTH, 30]]
    assert source.ground_truth()["annotations"][0]["bbox"] == [15, 10, WIDTH, 20]


def test_a_rounding_error_outside_is_clipped_without_a_report(folder):
    folder.add("train/a", "1.0 0.500001 0.5 1.000001 1")
    source = folder.open()
    assert source.problems == []
    assert source[0].boxes_xyxy[0, 2] == WIDTH


def test_the_image_of_an_unreadable_label_file_is_left_out(folder):
    folder.add("train/a")
    folder.add("train/b", LINE)
    (folder.root / "labels/train/a.txt").write_bytes(b"\xff\xfe\x00")
    source = folder.open()
    assert [problem.kind for problem in source.problems] == [problems.UNREADABLE_ANNOTATIONS]
    assert source.problems[0].file.endswith("a.txt")
    assert ids(source) == ["images/train/b.png"]


def test_a_split_without_any_label_file_is_a_problem_that_says_where_it_looked(folder):
    folder.add("train/a")
    source = folder.open()
    (problem,) = source.problems
    assert problem.kind == problems.MISSING_ANNOTATIONS
    assert str(folder.root / "labels/train/a.txt") in problem.found
    assert len(source) == 1


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: [", "is not valid yaml"),
        ("just text", "has no keys such as train"),
        (f"val: images/val\n{NAMES}", "has no train: name a folder"),
        (f"train: elsewhere\n{NAMES}", "there is no folder or file .*/elsewhere: correct train, or path"),
        (f"path: elsewhere\ntrain: images/train\n{NAMES}", "no folder or file .*/elsewhere/images/train"),
        (f"train: labels/train/a.txt\n{NAMES}", r"none of the 1 images listed or found is usable; .*line 1"),
        (f"train: images/train/a.png\n{NAMES}", r"a\.png is not a list of image paths"),
        ("train: images/train", "names is None: give the list"),
        ("train: images/train\nnames: []", r"names is \[\]: give the list"),
        ("train: images/train\nnames: {1: cat, 2: dog}", "names has the ids 1, 2: use the ids 0 to 1"),
        (f"train: images/train\nnc: 3\n{NAMES}", "nc is '3', but names has 2"),
        (f"train: images/train\nkpt_shape: [17, 4]\n{NAMES}", r"kpt_shape is \['17', '4'\]: give \[number of"),
        (f"train: images/train\nkpt_shape: many\n{NAMES}", "kpt_shape is 'many': give"),
    ],
)
def test_a_yaml_that_is_not_a_data_set_is_an_error_that_says_why(folder, yaml, message):
    folder.add("train/a", LINE)
    with pytest.raises(UserError, match=message):
        folder.open(yaml)


def jpeg(exif_orientation):
    exif = Image.Exif()
    exif[0x0112] = exif_orientation
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def test_boxes_are_fractions_of_the_rotated_image(folder):
    folder.add("train/a", LINE)
    (folder.root / "images/train/a.png").write_bytes(jpeg(exif_orientation=6))  # a quarter turn
    source = folder.open()
    assert source[0].image.shape == (WIDTH, HEIGHT, 3)
    assert source[0].boxes_xyxy.tolist() == [[15, 15, 25, 45]]
    assert source.ground_truth()["images"][0]["width"] == HEIGHT


@pytest.mark.parametrize("read_before", [True, False])
def test_ground_truth_is_in_pixels_and_decodes_an_image_only_once(folder, read_before):
    folder.add("train/a", LINE)
    source = folder.open()
    if read_before:
        _ = source[0]
        (folder.root / "images/train/a.png").unlink()
    truth = source.ground_truth()
    assert truth == {
        "images": [
            {
                "id": "images/train/a.png",
                "file_name": str(folder.root / "images/train/a.png"),
                "width": 60,
                "height": 40,
            }
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": "images/train/a.png",
                "category_id": 2,
                "bbox": [22.5, 10, 15, 20],
                "area": 300,
                "iscrowd": 0,
            }
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def test_an_unreadable_image_is_named_and_keeps_its_boxes_in_the_ground_truth(folder, caplog):
    folder.add("train/a", LINE)
    source = folder.open()
    (folder.root / "images/train/a.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"a\.png cannot be decoded"):
        source[0]
    assert len(source.ground_truth()["annotations"]) == 1
    assert "a.png cannot be decoded" in caplog.text


def test_encoded_is_the_file(folder):
    folder.add("train/a", LINE)
    assert folder.open().encoded(0) == (folder.root / "images/train/a.png").read_bytes()
