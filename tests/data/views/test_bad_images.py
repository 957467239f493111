"""Unreadable images are replaced by empty ones, or refused at the start."""

import logging
import pickle

import pytest

from tests.data.made_source import MadeSource, striped
from yolox_jax.data.images import ImageError, SizeError
from yolox_jax.data.sources import problems
from yolox_jax.data.views.bad_images import TooManyBadImages, apply_policy
from yolox_jax.errors import UserError
from yolox_jax.types import Problem


class DamagedSource(MadeSource):
    """Every third image cannot be read."""

    def __getitem__(self, index):
        if index % 3 == 0:
            raise ImageError(f"set/{index}.jpg cannot be decoded", "replace the file")
        return super().__getitem__(index)


@pytest.fixture
def damaged():
    return DamagedSource(striped(), [[2, 4, 12, 20]], length=70)


def test_an_empty_image_replaces_a_bad_one_and_each_is_reported_once_by_path(damaged, caplog):
    source = apply_policy(damaged, "replace", threads=2)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for index in (0, 1, 3):
                example = source[index]
                assert example.image_id == f"image {index}"
                assert len(example.boxes_xyxy) == len(example.labels) == (index == 1)
                assert (example.image == 114).all() == (index != 1)
    assert [record.message for record in caplog.records] == [
        f"set/{index}.jpg cannot be decoded, so an empty image takes its place: replace the file" for index in (0, 3)
    ]


def test_refusing_names_the_bad_images_at_the_start(damaged):
    seen = []
    with pytest.raises(ImageError) as caught:
        apply_policy(damaged, "refuse", threads=2, progress=lambda *counts: seen.append(counts))
    lines = str(caught.value).splitlines()
    assert lines[0] == "24 images cannot be used: repair them or take them out of the data set"
    assert lines[1].startswith("set/0.jpg") and lines[20].startswith("set/57.jpg")
    assert lines[21:] == ["and 4 more"]
    assert seen == [(number, 70) for number in range(1, 71)]


def test_a_data_set_without_bad_images_is_not_refused():
    source = MadeSource(striped(), [[2, 4, 12, 20]], length=3)
    assert apply_policy(source, "refuse", threads=2) is source


def test_other_errors_are_not_handled_as_bad_images():
    class Broken(MadeSource):
        def __getitem__(self, index):
            raise ZeroDivisionError

    for policy in ("replace", "refuse"):
        with pytest.raises(ZeroDivisionError):
            apply_policy(Broken(striped(), []), policy, threads=2)[0]


def test_an_unknown_policy_is_refused_with_the_known_ones(damaged):
    with pytest.raises(UserError, match=r"config\.data\.bad_images is 'skip': choose replace or refuse"):
        apply_policy(damaged, "skip", threads=2)


def test_the_run_stops_if_too_many_images_are_bad(damaged):
    source = apply_policy(damaged, "replace", threads=2)
    with pytest.raises(TooManyBadImages, match=r"11 of 70 images cannot be read, the last one because set/30\.jpg"):
        for index in range(70):
            source[index]


def test_an_image_of_another_size_than_annotated_is_never_replaced():
    class Resized(MadeSource):
        def __getitem__(self, index):
            raise SizeError("a.jpg is 20x10 pixels but 40x20 in the json", "correct it")

    resized = Resized(striped(), [], length=2)
    with pytest.raises(SizeError):
        apply_policy(resized, "replace", threads=2)[0]
    with pytest.raises(ImageError, match="2 images cannot be used: .*\na.jpg is 20x10"):
        apply_policy(resized, "refuse", threads=2)


@pytest.mark.parametrize("kind", [problems.MISSING_FILE, problems.UNKNOWN_FORMAT])
def test_an_image_that_the_source_left_out_is_refused_too(kind):
    whole = MadeSource(striped(), [], length=2)
    whole.problems = [Problem(kind, "train.json", "image 7", "images/7.jpg", "left out")]
    with pytest.raises(ImageError, match=r"1 images cannot be used: .*\ntrain.json: image 7: .*images/7.jpg"):
        apply_policy(whole, "refuse", threads=2)


def test_a_record_whose_boxes_cannot_be_read_has_none(damaged):
    class Unreadable(DamagedSource):
        def num_boxes(self, index):
            if index % 3 == 0:
                raise ImageError("record cannot be read", "copy it again")
            return super().num_boxes(index)

    source = apply_policy(Unreadable(striped(), [[2, 4, 12, 20]], length=9), "replace", threads=2)
    assert [source.num_boxes(index) for index in range(4)] == [0, 1, 1, 0]


def test_a_source_with_replaced_images_can_be_pickled_for_a_worker_process():
    source = apply_policy(DamagedSource(striped(), [[2, 4, 12, 20]], length=9), "replace", threads=2)
    assert (pickle.loads(pickle.dumps(source))[0].image == 114).all()
