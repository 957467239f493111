"""What the yaml of a YOLO data set names: lists in any spelling, and folders with more than images."""

import pytest

from tests.data.sources.test_yolo_txt import LINE, NAMES, Folder
from yolox_jax.data.sources import problems, yolo_yaml
from yolox_jax.errors import UserError


@pytest.mark.parametrize(
    "entry",
    ["images\\train\\é 1.png", "images/train/e\u0301 1.png", "./Images/train/É%201.PNG", "../images/train/é 1.PNG"],
)
def test_a_list_may_spell_its_paths_in_another_way(tmp_path, entry):
    folder = Folder(tmp_path)
    folder.add("train/é 1", LINE)
    folder.write("lists/train.txt", f"{entry}\n")
    source = folder.open(f"train: lists/train.txt\n{NAMES}")
    assert [source.image_id(index) for index in range(len(source))] == ["images/train/é 1.png"]
    assert source.num_boxes(0) == 1 and source.problems == []


def test_a_list_of_two_spellings_takes_each_file_once(tmp_path):
    folder = Folder(tmp_path)
    folder.add("train/a", LINE)
    folder.write("list.txt", "images/train/A.png\nimages/train/a.png\n")
    source = folder.open(f"train: list.txt\n{NAMES}")
    assert len(source) == 1
    assert [(problem.kind, problem.record) for problem in source.problems] == [(problems.REPEATED_IMAGE, "line 2")]


def test_a_folder_in_the_place_of_an_image_is_a_problem_and_one_of_images_is_not(tmp_path):
    folder = Folder(tmp_path)
    for name in ("train/a", "train/b", "train/scene.jpg/c"):
        folder.add(name, LINE)
    (folder.root / "images" / "train" / "b.png").unlink()
    (folder.root / "images" / "train" / "b.png").mkdir()
    source = folder.open()
    assert [source.image_id(index) for index in range(len(source))] == [
        "images/train/a.png",
        "images/train/scene.jpg/c.png",
    ]
    (problem,) = source.problems
    assert (problem.kind, problem.record, problem.found) == (problems.UNKNOWN_FORMAT, "folder", "b.png")


def test_a_folder_of_other_files_is_refused_before_the_whole_disk_is_listed(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    monkeypatch.setattr(yolo_yaml, "_MANY_OTHERS", 3)
    folder.add("train/a", LINE)
    for number in range(13):
        folder.write(f"images/train/{number}.json", "")
    assert len(folder.open()) == 1
    folder.write("images/train/13.json", "")
    with pytest.raises(UserError, match="images/train has 14 or more files that are neither images nor labels"):
        folder.open()
