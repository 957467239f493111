"""Reads small data sets that tfds itself wrote."""

import concurrent.futures
import dataclasses
import json
import logging
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from configs import base
from tests.material import ROOT
from yolox_jax.data.images import ImageError
from yolox_jax.data.sources import problems
from yolox_jax.data.sources.open import open_split
from yolox_jax.data.sources.tfds import TfdsSource
from yolox_jax.data.sources.tfds_files import FeatureNames
from yolox_jax.errors import NotFoundError, UserError

HEIGHT, WIDTH = 40, 60
F = tfds.features
PNG = cv2.imencode(".png", np.full((HEIGHT, WIDTH, 3), 50, np.uint8))[1].tobytes()
OBJECT = {
    "area": np.int64,
    "bbox": F.Tensor(shape=(4,), dtype=np.float32),  # BBoxFeature would refuse the wrong ones
    "is_crowd": np.bool_,
    "label": F.ClassLabel(names=["train", "toothbrush"]),
}
COCO = {"image": F.Image(), "image/id": np.int64, "objects": F.Sequence(OBJECT)}

tfds.disable_progress_bar()


def thing(**changes):
    """x 15 to 45, y 10 to 20."""
    return {"area": 80, "bbox": [0.25, 0.25, 0.5, 0.75], "is_crowd": False, "label": 1} | changes


def record(id, *objects, image=PNG):
    return {"image": image, "image/id": id, "objects": list(objects)}


@pytest.fixture
def write(tmp_path):
    """A function that writes records as "train", the first one also as "validation", and returns the folder."""

    def write_it(records, features=COCO, version="1.2.0"):
        class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version(version)
            code_path = None  # otherwise tfds looks for download checksums, with a package that it does not require

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=F.FeaturesDict(features), disable_shuffling=True)

            def _split_generators(self, dl_manager):
                return {"train": enumerate(records), "validation": enumerate(records[:1])}

            def _generate_examples(self):
                raise NotImplementedError

        builder = Small(data_dir=tmp_path)
        builder.download_and_prepare(file_format="array_record")
        return builder.data_path

    return write_it


def test_examples_have_pixels_boxes_and_ids_and_an_image_without_boxes_is_kept(write):
    source = TfdsSource(write([record(7, thing()), record(9)]), "train")
    assert (len(source), source.class_names) == (2, ("train", "toothbrush"))
    first, second = source[0], source[1]
    assert first.image.shape == (HEIGHT, WIDTH, 3)
    assert (first.image == 50).all()
    assert first.boxes_xyxy.tolist() == [[15, 10, 45, 20]]
    assert (first.boxes_xyxy.dtype, first.labels.dtype) == (np.float32, np.int32)
    assert first.labels.tolist() == [1]
    assert (first.image_id, second.image_id, source.image_id(1)) == (7, 9, 9)
    assert second.boxes_xyxy.shape == (0, 4)
    assert [source.num_boxes(index) for index in range(2)] == [1, 0]
    assert source.encoded(0) == PNG
    with pytest.raises(IndexError, match="image 2 of 2"):
        source[2]
    assert source.problems == []


def test_crowds_are_ground_truth_but_not_learned(write):
    source = TfdsSource(write([record(7, thing(is_crowd=True, label=0), thing())]), "train")
    assert source[0].labels.tolist() == [1]
    assert source.num_boxes(0) == 1
    truth = source.ground_truth()
    assert truth["categories"] == [{"id": 1, "name": "train"}, {"id": 2, "name": "toothbrush"}]
    assert [(image["id"], image["width"], image["height"]) for image in truth["images"]] == [(7, WIDTH, HEIGHT)]
    box = {"image_id": 7, "bbox": [15, 10, 30, 10], "area": 80}
    assert truth["annotations"] == [
        {"id": 1, "category_id": 1, "iscrowd": 1, **box},
        {"id": 2, "category_id": 2, "iscrowd": 0, **box},
    ]


def test_an_integer_area_of_zero_stands_for_less_than_a_pixel(write):
    source = TfdsSource(write([record(7, thing(area=0))]), "train")
    assert source.num_boxes(0) == 1
    assert source.ground_truth()["annotations"][0]["area"] == 300
    assert source.problems == []


def test_features_may_have_other_names_and_the_optional_ones_may_be_missing(write):
    box = {"where": F.BBoxFeature(), "what": F.ClassLabel(names=["a", "b"])}
    features = {"picture": F.Image(), "mask": F.Image(shape=(None, None, 1)), "things": F.Sequence(box)}
    where = F.BBox(ymin=0.5, xmin=0.0, ymax=1.0, xmax=0.5)
    folder = write([{"picture": PNG, "mask": b"never decoded", "things": [{"where": where, "what": "b"}]}], features)
    names = {"image": "picture", "objects": "things", "bbox": "where", "label": "what", "image_id": "", "area": None}
    source = TfdsSource(folder, "train", names)
    assert source[0].boxes_xyxy.tolist() == [[0, 20, 30, 40]]
    assert (source[0].labels.tolist(), source[0].image_id) == ([1], 0)
    (annotation,) = source.ground_truth()["annotations"]
    assert (annotation["area"], annotation["iscrowd"], annotation["image_id"]) == (600, 0, 0)


def test_the_usual_names_are_the_configs():
    assert dataclasses.asdict(FeatureNames()) == base.get_config().data.tfds.to_dict()


def test_ids_may_be_text(write):
    source = TfdsSource(write([record("müller_7")], COCO | {"image/id": F.Text()}), "train")
    assert (source[0].image_id, source.image_id(0)) == ("müller_7", "müller_7")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"bbox": [0.5, 0.5, 0.5, 0.75]}, problems.NO_SIZE),
        ({"bbox": [0.5, 0.5, 0.25, 0.75]}, problems.NO_SIZE),
        ({"bbox": [0.5, float("nan"), 0.75, 0.75]}, problems.NOT_FOUR_NUMBERS),
        ({"bbox": [1.0, 0.25, 1.5, 0.75]}, problems.OUTSIDE),
        ({"area": -1}, problems.NO_AREA),
        ({"label": -1}, problems.UNKNOWN_CATEGORY),
    ],
)
def test_a_bad_object_is_reported_once_and_left_out(write, caplog, changes, kind):
    source = TfdsSource(write([record(3), record(7, thing(), thing(**changes))]), "train")
    with caplog.at_level(logging.WARNING, "yolox_jax.data"):
        assert source.num_boxes(1) == len(source[1].boxes_xyxy) == 1
        assert len(source.ground_truth()["annotations"]) == 1
    (problem,) = source.problems
    assert (problem.kind, problem.record, problem.action) == (kind, "record 1, object 1", "object left out")
    assert [each.getMessage() for each in caplog.records] == [str(problem)]


def test_a_box_partly_outside_is_clipped_for_training_and_kept_in_the_ground_truth(write):
    source = TfdsSource(write([record(7, thing(bbox=[0.25, 0.5, 0.5, 1.25]))]), "train")
    assert source.num_boxes(0) == 1
    assert source[0].boxes_xyxy.tolist() == [[30, 10, 60, 20]]
    assert [(each.kind, each.action) for each in source.problems] == [(problems.PARTLY_OUTSIDE, "clipped for training")]
    assert source.ground_truth()["annotations"][0]["bbox"] == [30, 10, 45, 10]


def test_the_log_has_ten_lines_per_kind_and_one_that_says_there_are_more(write, caplog):
    source = TfdsSource(write([record(id, thing(label=-1)) for id in range(14)]), "train")
    with caplog.at_level(logging.WARNING, "yolox_jax.data"):
        source.ground_truth()
    assert len(source.problems) == 14
    assert len(caplog.records) == 11
    assert caplog.records[10].getMessage().endswith("more like these, not listed")


def test_an_image_that_cannot_be_decoded_is_named_and_the_rest_can_be_evaluated(write, caplog):
    source = TfdsSource(write([record(7, thing(), image=b"no picture"), record(9, thing())]), "train")
    with pytest.raises(ImageError, match=r"1\.2\.0 \(train\): record 0 cannot be decoded"):
        source[0]
    with caplog.at_level(logging.WARNING, "yolox_jax.data"):
        truth = source.ground_truth()
    assert [image["id"] for image in truth["images"]] == [7, 9]
    assert [annotation["image_id"] for annotation in truth["annotations"]] == [9]
    assert "record 0 cannot be decoded" in caplog.text


def test_an_image_id_that_occurs_twice_is_an_error(write):
    with pytest.raises(UserError, match="image id 7 occurs 2 times"):
        TfdsSource(write([record(7), record(7)]), "train").ground_truth()


def test_threads_and_pickled_copies_read_the_same(write):
    pictures = [cv2.imencode(".png", np.full((8, 8, 3), level, np.uint8))[1].tobytes() for level in range(40)]
    source = TfdsSource(write([record(id, thing(), image=picture) for id, picture in enumerate(pictures)]), "train")
    source[0]
    copy = pickle.loads(pickle.dumps(source))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for each in (source, copy):
            levels = pool.map(lambda index, each=each: int(each[index % 40].image[0, 0, 0]), range(400))
            assert list(levels) == [index % 40 for index in range(400)]


def test_the_root_may_be_above_the_version_if_there_is_only_one(write, tmp_path):
    folder = write([record(7)])
    unfinished = folder.with_name("1.2.0.unfinished")
    unfinished.mkdir()
    (unfinished / "dataset_info.json").write_text("{")
    for root in (folder, folder.parent, tmp_path):
        assert len(TfdsSource(root, "train")) == 1
    assert len(TfdsSource(tmp_path, "train[:0%]+validation")) == 1
    write([record(7)], version="1.3.0")
    with pytest.raises(UserError, match=r"root: .* several versions: give one of .*small/1\.2\.0, .*small/1\.3\.0"):
        TfdsSource(tmp_path, "train")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"root": "nowhere"}, NotFoundError, r"config\.data\.root: there is no folder .*nowhere: give the folder"),
        ({"root": "/dev"}, NotFoundError, r"config\.data\.root: no tfds data set is in /dev: give the folder"),
        ({"train": ""}, UserError, r"config\.data\.train is empty"),
        ({"train": "a.json"}, UserError, r"no split 'a\.json', only train, validation: set config\.data\.train"),
        (
            {"tfds": {"picture": "a"}},
            UserError,
            r"config\.data\.tfds\.picture is not known: the fields are image, image_id",
        ),
        ({"tfds": {"objects": "image"}}, UserError, r"the feature 'image' is Image\(.*objects must be a Sequence"),
        ({"tfds": {"bbox": "area"}}, UserError, r"the feature 'area' is .*bbox must be ymin, xmin, ymax, xmax"),
        ({"tfds": {"label": "area"}}, UserError, r"the feature 'area' is .*label must be a ClassLabel"),
        ({"tfds": {"label": "kind"}}, UserError, r"no feature 'kind' for label, only .*name it by config\.data"),
        ({"tfds": {"area": "size"}}, UserError, r"no feature 'size' for area"),
    ],
)
def test_an_error_names_the_field_and_what_there_is(write, data, error, message):
    right = {"kind": "tfds", "root": str(write([record(7, thing())])), "train": "train"}
    assert len(open_split(right, "train")) == 1
    with pytest.raises(error, match=message):
        open_split(right | data, "train")


def test_boxes_of_another_format_are_refused(write):
    features = COCO | {"objects": F.Sequence(OBJECT | {"bbox": F.BBoxFeature(bbox_format="XYWH")})}
    with pytest.raises(UserError, match="bbox must be ymin, xmin, ymax, xmax in fractions"):
        TfdsSource(write([record(7)], features), "train")


def test_a_tfrecord_data_set_is_an_error_that_says_how_to_convert_it(write):
    folder = write([record(7)])
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="format tfrecord.*tfds convert_format --dataset_version_dir=.*array_record"):
        TfdsSource(folder, "train")


def test_a_missing_file_is_named(write):
    folder = write([record(7)])
    (file,) = folder.glob("*train*")
    file.unlink()
    with pytest.raises(NotFoundError, match=rf"{file.name} is missing \(1 of 1 files\)"):
        TfdsSource(folder, "train")


def test_without_the_package_the_error_says_what_to_install(write, monkeypatch):
    folder = write([record(7)])
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        TfdsSource(folder, "train")


def test_reading_imports_no_tensorflow_and_other_kinds_not_even_tfds(write):
    program = """
import sys
from yolox_jax.data.sources.open import open_split
open_split({"kind": "shapes", "shapes": {"num_train": 2, "num_val": 2, "seed": 0}}, "train")[0]
assert "tensorflow_datasets" not in sys.modules
source = open_split({"kind": "tfds", "root": sys.argv[1], "train": "train"}, "train")
source[0], source.ground_truth()
assert "tensorflow" not in sys.modules
"""
    folder = write([record(7, thing())])
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(folder)], cwd=ROOT, check=True)
