"""The image and the xml of a listed name of Pascal VOC are found, and boxes never lie on another one's image."""

import unicodedata

import cv2
import numpy as np
import pytest

from tests.data.sources.test_voc import HEIGHT, WIDTH, Devkit, an_object
from yolox_jax.data.sources import problems


@pytest.fixture
def devkit(tmp_path):
    return Devkit(tmp_path)


@pytest.mark.parametrize(
    ("image", "filename"),
    [
        ("000001.png", "000001"),
        ("000001.png", "000001.jpg"),
        ("000001.jpeg", "/somewhere/photos/000001.jpeg"),
        ("000001.png", "C:\\photos\\000001.png"),
        ("000001.png", ""),
        ("000001.JPG", "000001.jpg"),
        ("photo.v1.png", "photo.v1"),
        ("photo.png", "photo.jpg"),
    ],
)
def test_an_image_is_found_whatever_its_ending_and_whatever_the_xml_states(devkit, image, filename):
    devkit.add("000001", an_object(), image=image, filename=filename)
    devkit.list("000001")
    source = devkit.open()
    assert source.problems == []
    assert source.ground_truth()["images"][0]["file_name"].endswith(f"/{image}")


def write_levels(devkit, **levels):
    """Writes images of one gray level each."""
    for name, level in levels.items():
        pixels = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
        cv2.imwrite(str(devkit.root / "VOC2007" / "JPEGImages" / f"{name}.png"), pixels)


def test_boxes_belong_to_the_image_of_the_xmls_own_name_although_it_states_another(devkit):
    for name in ("a", "b"):
        devkit.add(name, an_object(), image=f"{name}.png", filename="a.png")
    write_levels(devkit, a=60, b=200)
    devkit.list("a", "b")
    source = devkit.open()
    assert [int(source[index].image.mean()) for index in range(2)] == [60, 200]
    assert source.problems == []


def test_a_stated_image_that_has_an_xml_of_its_own_is_not_taken(devkit):
    for name in ("a", "b"):
        devkit.add(name, an_object(), image="a.png", filename="a.png")
    devkit.list("b", "a")
    source = devkit.open()
    assert [source.image_id(index) for index in range(len(source))] == ["a"]
    (problem,) = source.problems
    assert (problem.kind, problem.record, problem.num_left_out) == (problems.MISSING_FILE, "line 1", 1)
    assert problem.found.endswith("b.jpg or a.png")


def test_a_stated_image_is_given_to_one_xml_only(devkit):
    for name in ("a", "b"):
        devkit.add(name, an_object(), image="photo.png", filename="photo.png")
    devkit.list("a", "b")
    source = devkit.open()
    assert [source.image_id(index) for index in range(len(source))] == ["a"]
    assert [problem.kind for problem in source.problems] == [problems.MISSING_FILE]


def test_names_of_two_cases_are_two_images(devkit):
    for name in ("a", "A"):
        devkit.add(name, an_object(), image=f"{name}.png")
    write_levels(devkit, a=60, A=200)
    devkit.list("a", "A")
    source = devkit.open()
    assert [int(source[index].image.mean()) for index in range(2)] == [60, 200]
    (devkit.root / "VOC2007" / "JPEGImages" / "a.png").unlink()
    assert [problem.record for problem in devkit.open().problems] == ["line 1"]


def test_a_list_may_spell_names_in_another_way(devkit):
    devkit.add("Café", an_object(), image="CAFÉ.jpg")
    devkit.list(unicodedata.normalize("NFD", "café"))
    source = devkit.open()
    assert len(source) == 1 and source.problems == []
