"""The doctor finds one fault put into a clean data set, and nothing else."""

import copy
import json
import os
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.tools.doctor.made_data_sets import HEIGHT, NUM_IMAGES, WIDTH
from yolox_jax.data import image_header
from yolox_jax.tools.doctor import examination


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A folder with train.json, val.json and their images: two boxes per image, one of each class."""
    root = tmp_path_factory.mktemp("clean")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split).mkdir()
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
        for id in range(1, NUM_IMAGES + 1):
            cv2.imwrite(str(root / split / f"{id}.png"), rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
            content["images"].append({"id": id, "file_name": f"{id}.png", "width": WIDTH, "height": HEIGHT})
            for category, bbox in ((1, [2, 3 + id, 20, 16]), (2, [40, 20, 22, 27])):
                record = {"id": len(content["annotations"]) + 1, "image_id": id, "category_id": category, "bbox": bbox}
                content["annotations"].append(record)
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


class DataSet:
    """A copy of the clean data set, for a test to put a fault in."""

    def __init__(self, root):
        self.root = root
        self.train, self.val = (json.loads((root / f"{split}.json").read_text()) for split in ("train", "val"))

    def examine(self, also=(), **changes) -> examination.Report:
        for split in ("train", "val"):
            (self.root / f"{split}.json").write_text(json.dumps(getattr(self, split)))
        data = {"kind": "coco", "root": str(self.root), "also": also}
        for split in ("train", "val"):
            data |= {split: f"{split}.json", f"{split}_images": split}
        return examination.examine(data, **({"size_hw": (64, 64), "max_boxes": 10} | changes))

    def add(self, bbox, image_id=1, category_id=1, **more):
        record = {"id": 99, "image_id": image_id, "category_id": category_id, "bbox": bbox}
        self.train["annotations"].append(record | more)

    def write(self, path, shape=(HEIGHT, WIDTH, 3)):
        cv2.imwrite(str(self.root / path), np.random.default_rng(1).integers(0, 256, shape, np.uint8))


@pytest.fixture
def data_set(clean, tmp_path):
    shutil.copytree(clean, tmp_path / "set")
    return DataSet(tmp_path / "set")


def _rewrite(data_set, how):
    for content in (data_set.train, data_set.val):
        for record in content["annotations"]:
            how(record)


def _as_corners(record):
    x, y, w, h = record["bbox"]
    record["bbox"] = [x, y, x + w, y + h]


def _as_center(record):
    x, y, w, h = record["bbox"]
    record["bbox"] = [x + w / 2, y + h / 2, w, h]


def _as_fractions(record):
    x, y, w, h = record["bbox"]
    record["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


def _shift(step):
    def shift(record):
        record["category_id"] += step

    return shift


def _truncate(data_set):
    path = data_set.root / "train" / "3.png"
    path.write_bytes(path.read_bytes()[:200])


def _leave_two_boxes_of(category):
    def leave(data_set):
        of_it = [record for record in data_set.train["annotations"] if record["category_id"] == category]
        data_set.train["annotations"] = [record for record in data_set.train["annotations"] if record not in of_it[2:]]

    return leave


def _in_both(data_set):
    shutil.copy(data_set.root / "train" / "5.png", data_set.root / "val" / "7.png")


def _twice(data_set):
    shutil.copy(data_set.root / "val" / "5.png", data_set.root / "val" / "7.png")


def _take_image_away(data_set):
    (data_set.root / "train" / "3.png").unlink()


def _write_dark(data_set):
    for number in range(1, 8):
        levels = np.random.default_rng(number).integers(0, 4096, (HEIGHT, WIDTH), np.uint16)
        cv2.imwrite(str(data_set.root / "train" / f"{number}.png"), levels)


def _call_both_classes_cat(data_set):
    for content in (data_set.train, data_set.val):
        content["categories"][1]["name"] = "cat"


def _list_empty_image(data_set):
    data_set.write("train/empty.png")
    data_set.train["images"].append({"id": 50, "file_name": "empty.png", "width": WIDTH, "height": HEIGHT})


def _mark_crowds(data_set, number):
    for record in data_set.train["annotations"][:number]:
        record["iscrowd"] = 1


def _write_with_a_word(data_set):
    """A JPEG, whatever its name: its pixels are whole, but libjpeg finds bytes behind them."""
    jpeg = cv2.imencode(".jpg", cv2.imread(str(data_set.root / "train" / "3.png")))[1].tobytes()
    (data_set.root / "train" / "3.png").write_bytes(jpeg[:-2] + b"\x55" * 40 + jpeg[-2:])


def _write_damaged_tiff(data_set):
    image = Image.open(data_set.root / "train" / "3.png")
    data_set.train["images"][2]["file_name"] = "3.tif"
    path = data_set.root / "train" / "3.tif"
    image.save(path, compression="tiff_adobe_deflate", tiffinfo={278: HEIGHT})  # in one strip
    data = bytearray(path.read_bytes())
    (offset,), (length,) = (image_header.tiff_values(data, tag) for tag in (273, 279))
    data[offset + length - 1] ^= 1  # of the checksum
    path.write_bytes(data)


FAULTS = {
    "decoder-warning": ("warning", "3.png", "image 3", _write_with_a_word),
    "damaged-image": ("error", "3.tif", "image 3", _write_damaged_tiff),
    "empty-bbox": (
        *("warning", "train.json", "annotation 99"),
        lambda d: d.add([0, 0, 0, 0], segmentation=[[5, 25, 14, 25, 9, 34]]),
    ),
    "unreadable-image": ("error", "3.png", "image 3", _truncate),
    "same-class-name": ("error", "train.json", "classes", _call_both_classes_cat),
    "nearly-black": ("warning", "1.png", "image 1", _write_dark),
    "missing-image": ("error", "train.json", "image 3", _take_image_away),
    "mis-sized-image": ("error", "3.png", "image 3", lambda d: d.write("train/3.png", (HEIGHT, WIDTH + 2, 3))),
    "unknown-category": ("error", "train.json", "annotation 99", lambda d: d.add([5, 25, 9, 9], category_id=7)),
    "unknown-image": ("error", "train.json", "annotation 99", lambda d: d.add([5, 25, 9, 9], image_id=70)),
    "box-without-size": ("error", "train.json", "annotation 99", lambda d: d.add([5, 25, 0, 9])),
    "box-outside": ("error", "train.json", "annotation 99", lambda d: d.add([65, 25, 9, 9])),
    "box-partly-outside": ("warning", "train.json", "annotation 99", lambda d: d.add([50, 5, 29, 9])),
    "not-four-numbers": ("error", "train.json", "annotation 99", lambda d: d.add([50, 5, None, 9])),
    "no-area": ("error", "train.json", "annotation 99", lambda d: d.add([5, 25, 9, 9], area=-1)),
    "normalised-boxes": ("error", "2.png", "image 2, cat at x 0.1", lambda d: d.add([0.1, 0.2, 0.5, 0.3], image_id=2)),
    "duplicate-box": ("warning", "1.png", "image 1, dog at x 40", lambda d: d.add([40, 20, 22, 27.2], category_id=2)),
    "duplicate-image": ("warning", "7.png", "image 7", _twice),
    "image-in-train-and-val": ("error", "val/7.png", "image 7", _in_both),
    "images-without-boxes": ("note", "empty.png", "image 50", _list_empty_image),
    "box-below-1-pixel": ("warning", "1.png", "cat at x 30, y 5, w 9, h 0.9", lambda d: d.add([30, 5, 9, 0.9])),
    "boxes-below-8-pixels": ("note", "1.png", "cat at x 30, y 5, w 9, h 7.5", lambda d: d.add([30, 5, 9, 7.5])),
    "class-with-few-boxes": ("warning", "", "class dog", _leave_two_boxes_of(2)),
    "class-without-boxes": (
        "warning",
        "",
        "class hen",
        lambda d: [content["categories"].append({"id": 3, "name": "hen"}) for content in (d.train, d.val)],
    ),
    "class-names-differ": ("error", "", "class names", lambda d: d.val["categories"][0].update(name="Cat")),
    "shifted-categories": ("error", "train.json", "all annotations", lambda d: _rewrite(d, _shift(-1))),
    "wrong-box-format": ("error", "1.png", "dog at x 40", lambda d: _rewrite(d, _as_corners)),
    "many-crowds": ("error", "train.json", "annotation 1", lambda d: _mark_crowds(d, 13)),
    "cannot-open": ("error", "", "", lambda d: d.train["images"].append(copy.copy(d.train["images"][0]))),
}


def test_nothing_is_found_in_a_clean_data_set(data_set):
    assert data_set.examine(num_classes=2).findings == []


@pytest.mark.parametrize("code", FAULTS)
def test_a_data_set_with_one_fault_has_that_finding_with_file_and_record(data_set, code):
    severity, file, record, spoil = FAULTS[code]
    spoil(data_set)
    found = data_set.examine().findings
    assert {finding.code for finding in found} == {code}
    assert found[0].severity == severity
    assert found[0].file.endswith(file) and record in found[0].record
    assert found[0].what and found[0].advice


def test_a_word_of_a_decoder_is_an_error_if_strict_and_is_part_of_that_of_an_unreadable_image(data_set, capfd):
    _write_with_a_word(data_set)
    path = data_set.root / "train" / "5.png"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    found = {finding.code: finding for finding in data_set.examine(strict=True, threads=3).findings}
    assert {*found} == {"decoder-warning", "unreadable-image"}
    assert {finding.severity for finding in found.values()} == {"error"}
    assert "extraneous bytes before marker" in found["decoder-warning"].what and found["decoder-warning"].image == 2
    assert "5.png cannot be decoded (libpng error: IDAT: " in found["unreadable-image"].what
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_more_boxes_than_slots_are_found(data_set):
    found = data_set.examine(max_boxes=1).findings
    assert {finding.code for finding in found} == {"too-many-boxes"}
    assert len(found) == 2 * NUM_IMAGES
    assert "max_boxes=2" in found[0].advice


def test_images_without_boxes_are_a_warning_if_they_are_the_majority(data_set):
    data_set.train["annotations"] = [a for a in data_set.train["annotations"] if a["image_id"] <= 5]
    (finding,) = [f for f in data_set.examine().findings if f.code == "images-without-boxes"]
    assert finding.severity == "warning"
    assert "7 of 12 images (58.3%)" in finding.what


@pytest.mark.parametrize(("step", "ids"), [(-1, "0 to 1"), (1, "2 to 3")])
def test_category_ids_shifted_up_or_down_are_one_finding_a_split(data_set, step, ids):
    _rewrite(data_set, _shift(step))
    found = data_set.examine().findings
    assert [(f.code, f.split) for f in found] == [("shifted-categories", "train"), ("shifted-categories", "val")]
    assert f"{ids} are used, 1 to 2 are listed" in found[0].what


@pytest.mark.parametrize(("rewrite", "meant"), [(_as_corners, "x1, y1, x2, y2"), (_as_center, "cx, cy, w, h")])
def test_the_format_in_which_the_boxes_were_written_is_named(data_set, rewrite, meant):
    _rewrite(data_set, rewrite)
    found = data_set.examine().findings
    assert {finding.code for finding in found} == {"wrong-box-format"}
    assert f"all boxes lie inside if read as {meant}" in found[0].what


def test_a_data_set_of_fractions_is_one_finding_a_split(data_set):
    _rewrite(data_set, _as_fractions)
    found = data_set.examine().findings
    assert [(finding.code, finding.split) for finding in found if finding.severity == "error"] == [
        ("normalised-boxes", "train"),
        ("normalised-boxes", "val"),
    ]
    assert "24 of 24 boxes" in found[0].what


def test_one_examination_finds_all_faults_each_of_which_would_stop_training(data_set):
    data_set.write("train/3.png", (HEIGHT, WIDTH + 2, 3))
    data_set.write("val/4.png", (HEIGHT + 2, WIDTH, 3))
    data_set.val["categories"].reverse()
    data_set.val["categories"][0]["id"], data_set.val["categories"][1]["id"] = 1, 2
    found = data_set.examine(num_classes=2).findings
    assert [(f.code, f.split) for f in found] == [
        ("mis-sized-image", "train"),
        ("mis-sized-image", "val"),
        ("class-names-differ", "train and val"),
    ]


def test_a_split_that_cannot_be_opened_does_not_hide_the_other(data_set):
    data_set.train["categories"] = []
    data_set.write("val/4.png", (HEIGHT + 2, WIDTH, 3))
    assert [f.code for f in data_set.examine().findings] == ["cannot-open", "mis-sized-image"]


def test_a_split_that_cannot_be_opened_shows_the_paths_that_were_tried(data_set):
    for image in data_set.train["images"]:
        image["file_name"] = f"elsewhere/{image['file_name']}"
    found = data_set.examine().findings
    assert [f.code for f in found] == ["cannot-open", *["missing-image"] * NUM_IMAGES]
    assert str(data_set.root / "train" / "elsewhere" / "1.png") in found[0].what
    assert "train/elsewhere/12.png" in found[-1].what and found[-1].record == "image 12"


@pytest.mark.parametrize(("num_left_out", "code"), [(16, "few-usable"), (24, "training-would-stop")])
def test_each_of_several_data_sets_is_judged_as_training_does(clean, data_set, num_left_out, code):
    for record in data_set.train["annotations"][:num_left_out]:
        record["area"] = 0
    found = data_set.examine(also=({"root": str(clean)},)).findings
    (finding,) = [each for each in found if each.code in ("few-usable", "training-would-stop")]
    assert (finding.code, finding.split) == (code, "train") and str(num_left_out) in finding.what
    assert code == "few-usable" or finding.record == "data set set"


def test_an_error_that_is_not_the_users_keeps_its_traceback(data_set, monkeypatch):
    def open_unchecked(data, split):
        raise ValueError("a bug")

    monkeypatch.setattr(examination, "open_unchecked", open_unchecked)
    with pytest.raises(ValueError, match="a bug"):
        data_set.examine()
