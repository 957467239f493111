"""Labels find their images and images their labels, whatever the spelling; those that do not are named and counted."""

import unicodedata

import pytest

from tests.data.sources.test_yolo_txt import LINE, YAML, Folder
from yolox_jax.data.sources import problems
from yolox_jax.data.sources.open import open_split
from yolox_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def open_checked(folder, yaml=YAML):
    folder.write("data.yaml", yaml)
    return open_split({"kind": "yolo_txt", "root": str(folder.root)}, "train")


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        (unicodedata.normalize("NFD", "train/é"), unicodedata.normalize("NFC", "train/é.txt")),
        ("train/a", "train/a.TXT"),
        ("train/a", "train/A.txt"),
        ("train/a", "Train/a.txt"),
    ],
)
def test_labels_are_found_under_another_spelling(folder, image, labels):
    folder.add(image)
    folder.write(f"labels/{labels}", LINE)
    source = open_checked(folder)
    assert source.num_boxes(0) == 1
    assert source.problems == []


def test_labels_of_one_image_are_not_those_of_another_case(folder):
    folder.add("train/a", LINE)
    folder.add("train/A")
    source = open_checked(folder)
    assert [(source.image_id(index), source.num_boxes(index)) for index in range(2)] == [
        ("images/train/A.png", 0),
        ("images/train/a.png", 1),
    ]


def test_labels_without_an_image_are_counted_and_named(folder):
    for number in range(20):
        folder.add(f"train/{number}", LINE)
    folder.write("labels/train/other.txt", f"{LINE}\n{LINE}\n")
    folder.write("labels/train/sub/other.txt", LINE)
    found = [
        (each.kind, each.file.removeprefix(str(folder.root)), each.num_left_out) for each in folder.open().problems
    ]
    assert sorted(found) == [
        (problems.UNMATCHED_LABELS, "/labels/train/other.txt", 2),
        (problems.UNMATCHED_LABELS, "/labels/train/sub/other.txt", 1),
    ]


def test_names_of_classes_empty_labels_and_labels_of_another_split_are_not_reported(folder):
    for name in ("all/a", "all/b"):
        folder.add(name, LINE)
    folder.write("labels/all/classes.txt", "cat\ndog\n")
    folder.write("labels/all/empty.txt", "\n")
    folder.write("labels/all/train.txt", "images/all/a.png\n")
    folder.write("list.txt", "images/all/a.png\n")
    assert folder.open(YAML.replace("images/train", "list.txt")).problems == []


@pytest.mark.parametrize(("num_renamed", "is_refused"), [(2, False), (3, True)])
def test_more_than_a_tenth_of_labels_and_images_without_each_other_are_an_error(folder, num_renamed, is_refused):
    for number in range(20):
        folder.add(f"train/{number}", LINE)
    for number in range(num_renamed):
        file = folder.root / "labels" / "train" / f"{number}.txt"
        file.rename(file.with_name(f"label {number}.txt"))
    if not is_refused:
        assert len(open_checked(folder).problems) == num_renamed
        return
    with pytest.raises(UserError, match=r"3 label files belong to no image, .*/label 0\.txt, and 3 of 20 images"):
        open_checked(folder)


def test_labels_of_images_that_were_taken_out_are_only_reported(folder):
    for number in range(4):
        folder.add(f"train/{number}", LINE)
    (folder.root / "images" / "train" / "0.png").unlink()
    assert [problem.kind for problem in open_checked(folder).problems] == [problems.UNMATCHED_LABELS]


@pytest.mark.parametrize(("num_missing", "is_refused"), [(2, False), (3, True)])
def test_more_missing_images_than_found_ones_are_an_error_with_the_first_path(folder, num_missing, is_refused):
    names = [f"images/train/{number}.png" for number in range(4)]
    for number in range(num_missing, 4):
        folder.add(f"train/{number}", LINE)
    folder.write("list.txt", "\n".join(names))
    yaml = YAML.replace("images/train", "list.txt")
    if not is_refused:
        assert len(open_checked(folder, yaml).problems) == num_missing
        return
    with pytest.raises(UserError, match=r"3 of 4 images are missing, the first is .*/images/train/0\.png .*line 1"):
        open_checked(folder, yaml)


def test_a_link_to_a_folder_above_or_to_another_image_adds_no_image(folder):
    for number in range(12):
        folder.add(f"train/{number}", LINE)
    (folder.root / "images" / "train" / "up").symlink_to(folder.root / "images" / "train")
    (folder.root / "images" / "train" / "above").symlink_to(folder.root / "images")
    (folder.root / "images" / "train" / "again.png").symlink_to(folder.root / "images" / "train" / "3.png")
    source = open_checked(folder)
    assert len(source) == 12
    assert [(problem.kind, problem.found) for problem in source.problems] == [
        (problems.REPEATED_IMAGE, f"again.png is {folder.root}/images/train/3.png")
    ]


def test_images_may_be_links_to_another_folder(folder):
    folder.add("train/a", LINE)
    (folder.root / "images" / "train" / "a.png").rename(folder.root / "pool.png")
    (folder.root / "images" / "train" / "a.png").symlink_to(folder.root / "pool.png")
    source = open_checked(folder)
    assert len(source) == 1 and source.problems == []
