"""Files are found under other spellings of their names, but never instead of another one's file."""

import unicodedata

import pytest

from yolox_jax.data.folders import Folders, find_each, same_name

NFC, NFD = (unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD"))


@pytest.fixture
def put(tmp_path):
    """Returns a function that creates empty files below the folder."""

    def put_it(*names):
        for name in names:
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return str(tmp_path)

    return put_it


def test_each_folder_is_listed_only_once(put, tmp_path):
    folder = put("a.jpg")
    folders = Folders()
    assert folders.have(f"{folder}/a.jpg")
    put("late.jpg")
    assert not folders.have(f"{folder}/late.jpg")
    assert not folders.have(f"{folder}/no such folder/a.jpg")


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        (NFC, NFD),
        (NFD, NFC),
        ("a.JPG", "a.jpg"),
        ("Sub/A.png", "sub/a.PNG"),
        ("sub/a.png", "sub\\a.png"),
        ("my photo.png", "my%20photo.png"),
        ("my%20photo.png", "my%20photo.png"),
        (f"sub/{NFD}", f"SUB\\{NFC}"),
    ],
)
def test_another_spelling_finds_the_file(put, on_disk, written):
    folder = put(on_disk, "other.png")
    assert find_each(Folders(), folder, [written, "other.png"]) == [f"{folder}/{on_disk}", f"{folder}/other.png"]


@pytest.mark.parametrize(
    "written", ["images\\a.png", "..\\..\\upload\\4\\a.png", "b.png", "a", "a.png/x", "\0", "a" * 999, "/a.png"]
)
def test_a_file_of_another_name_or_folder_is_not_found(put, written):
    assert find_each(Folders(), put("a.png", "A.jpg"), [written]) == [None]


def test_of_two_spellings_only_the_exact_one_is_found(put):
    folder = put("a.png", "A.png")
    assert find_each(Folders(), folder, ["a.png", "a.PNG"]) == [f"{folder}/a.png", None]


def test_a_file_is_not_given_to_two_names(put):
    folder = put("a.png")
    assert find_each(Folders(), folder, ["A.png", "a.png", "a.PNG"]) == [None, f"{folder}/a.png", None]
    assert find_each(Folders(), folder, ["A.png", "a.PNG", "A.png"]) == [f"{folder}/a.png", None, f"{folder}/a.png"]


def test_names_of_a_stem_are_found_in_order_whatever_their_ending(put):
    folder = put("a.png", "A.jpg", "a.b.png", "b.png")
    assert Folders().with_stem(folder, "a") == ["A.jpg", "a.png"]
    assert Folders().with_stem(folder, "a.b") == ["a.b.png"]


def test_spellings_that_differ_in_form_and_case_are_one_name():
    assert same_name("É") == same_name(unicodedata.normalize("NFD", "é")) != same_name("e")
