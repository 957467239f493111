"""Several data sets are one: classes are merged by name, ids stay apart, and messages name the data set."""

import json
import pickle

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from configs import base
from tests.data.sources.test_formats import CLASS_NAMES, PICTURES, WRITERS
from tests.data.views.test_classes import _assert_consistent
from tests.material import ROOT
from yolox_jax.cli import from_config
from yolox_jax.data.sources import several
from yolox_jax.data.sources.open import check_classes, open_split
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.evaluation import coco_ap


@pytest.fixture
def data(tmp_path):
    """One data set in COCO's format and one in YOLO's, in which ant is called wasp and comes last."""
    first = {**base.get_config().data.to_dict(), **WRITERS["coco"](tmp_path / "coco" / "mine"), "val": "train.json"}
    first |= {"val_images": "images", "also": ()}
    more = WRITERS["yolo_txt"](tmp_path / "yolo" / "mine")
    names = "[bee, cell, wasp]"
    (tmp_path / "yolo" / "mine" / "data.yaml").write_text(f"train: images\nval: images\nnames: {names}\n")
    return first | {"root": str(first["root"]), "also": ({**more, "root": str(more["root"])},)}


def test_classes_of_the_same_name_are_one_and_images_follow_one_another(data):
    source = open_split(data, "train")
    assert source.class_names == (*CLASS_NAMES, "wasp")
    assert len(source) == 2 * len(PICTURES)
    assert [source.image_id(index) for index in range(8)] == [
        *[f"mine-1/{id}" for id in (5, 6, 7, 8)],
        *[
            f"mine-2/{open_split(dict(data, **data['also'][0], also=()), 'train').image_id(index)}"
            for index in range(4)
        ],
    ]
    _assert_consistent(source)
    renamed = {0: 1, 1: 2, 2: 3}  # the second file's labels
    for index in range(4):
        np.testing.assert_array_equal(source[index].image, source[4 + index].image)
        assert source.labels(4 + index).tolist() == [renamed[label] for label in source.labels(index)]
        assert source.encoded(index) == source.encoded(4 + index)
    check_classes(None, source.class_names, open_split(data, "val").class_names)
    assert pickle.loads(pickle.dumps(source)).image_id(5) == source.image_id(5)


def test_perfect_detections_of_all_data_sets_have_an_ap_of_one(data):
    truth = open_split(data, "val").ground_truth()
    detections = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "bbox": each["bbox"], "score": 0.9}
        for each in truth["annotations"]
    ]
    assert coco_ap.compute_ap(truth, detections).stats["AP"] == pytest.approx(1.0)


def test_a_data_set_for_training_only_keeps_its_classes_in_both_splits(data):
    data["also"][0]["val"] = ""
    train, val = open_split(data, "train"), open_split(data, "val")
    assert (len(train), len(val)) == (8, 4) and train.class_names == val.class_names
    _assert_consistent(val)


def test_only_an_empty_split_of_its_own_leaves_a_data_set_out(data):
    yolo = data["also"][0]  # which does not read these fields
    first = data | yolo | {"train": "", "val": ""}
    assert [len(open_split(first, split)) for split in ("train", "val")] == [8, 8]


def test_the_kinds_of_all_data_sets_are_named(data):
    assert several.kinds(data) == "coco and yolo_txt" and several.kinds(data | {"also": ()}) == "coco"


def test_names_that_differ_in_case_are_a_warning(data, caplog):
    file = f"{data['also'][0]['root']}/data.yaml"
    with open(file, "w") as yaml:
        yaml.write("train: images\nval: images\nnames: [Ant, cell, bee]\n")
    assert open_split(data, "train").class_names == (*CLASS_NAMES, "Ant")
    assert "the classes 'ant' of mine-1 and 'Ant' of mine-2 stay two classes" in caplog.text


def test_an_error_names_the_data_set_and_the_file(data):
    data["also"] = ({"root": data["root"], "train": "absent.json"},)
    with pytest.raises(
        NotFoundError, match=r"^data set 2 \(.*mine\): config.data.train: there is no file .*absent.json"
    ):
        open_split(data, "train")
    data["also"] = ({"rooot": "a"},)
    with pytest.raises(UserError, match=r"^config.data.also\[0\] has 'rooot': give fields of config.data"):
        open_split(data, "train")
    data["also"] = ("datasets/more",)
    with pytest.raises(UserError, match=r"^config.data.also\[0\] is 'datasets/more': give the fields that differ"):
        open_split(data, "train")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_command_line_names_data_sets_classes_and_a_fraction(monkeypatch, data):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    given = {"root": data["root"], "train": "train.json", "train_images": "images", "val": "train.json"}
    also = json.dumps(dict(data["also"][0]))
    argv = ["program", f"--config={ROOT / 'configs' / 'yolox_nano.py'}", f"--config.data.also=({also},)"]
    argv += [f"--config.data.{name}={value}" for name, value in given.items()]
    argv += ["--config.data.val_images=images", "--config.data.classes=wasp, bee", "--config.data.fraction=0.5"]
    monkeypatch.setattr("sys.argv", argv)
    values(argv)
    config = values["config"].value
    train, val = (from_config.open_source(config, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("wasp", "bee")
    assert (len(train), len(val)) == (4, 8)
    assert json.loads(json.dumps(config.to_dict()))["data"]["also"] == [dict(data["also"][0])]
