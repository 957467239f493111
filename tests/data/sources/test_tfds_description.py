"""Descriptions of tfds data sets that are damaged, or name code to run, are refused with the file and the reason."""

import json
import os
import shutil
import sys

import pytest
import tensorflow_datasets as tfds

from yolox_jax.data.sources.tfds import TfdsSource
from yolox_jax.errors import UserError

F = tfds.features
_OWN = "tensorflow_datasets.core.features"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A data set of one record."""
    folder = tmp_path_factory.mktemp("tfds")
    box = {"bbox": F.BBoxFeature(), "label": F.ClassLabel(names=["cat", "dog"])}

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")
        code_path = None

        def _info(self):
            features = F.FeaturesDict({"image": F.Image(), "objects": F.Sequence(box)})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": [(0, {"image": b"", "objects": []})]}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Small(data_dir=folder)
    builder.download_and_prepare(file_format="array_record")
    return builder.data_path


@pytest.fixture
def changed(original, tmp_path):
    """A function that copies the data set, replaces `old` by `new` in one of its files, and returns the folder."""

    def change(file, old, new):
        folder = shutil.copytree(original, tmp_path / "1.2.0", dirs_exist_ok=True)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        return folder

    return change


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module `trapped` that can be imported, and must not be."""
    (tmp_path / "trapped.py").write_text("import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    assert not (tmp_path / "trapped.ran").exists()
    assert "trapped" not in sys.modules


def _refused(folder, message):
    with pytest.raises(UserError, match=message):
        TfdsSource(folder, "train")


@pytest.mark.parametrize(
    "name", ["trapped.Feature", f"{_OWN}.trapped.Image", f"{_OWN}.image_feature.Video", "os.system", "Image", ""]
)
def test_a_class_that_is_not_tfds_own_is_named_and_not_imported(changed, trap, name):
    folder = changed("features.json", f"{_OWN}.bounding_boxes.BBoxFeature", name)
    _refused(folder, f"features.json names the Python class '{name}', which is not tfds' own; nothing of it was run")


_TRAP = {"pythonClassName": "trapped.Feature", "tensor": {}}


@pytest.mark.parametrize(
    "features",
    [
        {"type": "trapped.Feature", "content": {}},
        {"python_class_name": "trapped.Feature", "tensor": {}},
        {"type": f"{_OWN}.features_dict.FeaturesDict", "content": json.dumps({"features": {"a": _TRAP}})},
        {"type": f"{_OWN}.features_dict.FeaturesDict", "content": {"a": {"type": "trapped.Feature", "content": {}}}},
        {
            "pythonClassName": f"{_OWN}.features_dict.FeaturesDict",
            "jsonFeature": {"json": json.dumps({"a": {"type": "trapped.Feature", "content": {}}})},
        },
    ],
)
def test_a_class_is_found_wherever_tfds_would_look_for_it(changed, trap, features):
    folder = changed("features.json", "{", "{")
    (folder / "features.json").write_text(json.dumps(features))
    _refused(folder, "features.json names the Python class 'trapped.Feature'")


def test_the_other_file_may_name_classes_too(changed, trap):
    folder = changed("dataset_info.json", '"name": "small"', f'"features": {json.dumps(_TRAP)}, "name": "small"')
    _refused(folder, "dataset_info.json names the Python class 'trapped.Feature'")


_INFO, _FEATURES = "dataset_info.json", "features.json"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (_FEATURES, "{", "", "features.json is not valid json"),
        (_FEATURES, "{", "[" * 100_000, "features.json is nested too deeply"),
        (_FEATURES, '"label"', '"\\ud800"', "features.json has the text .*, which no file"),
        (_FEATURES, f"{_OWN}.features_dict.FeaturesDict", f"{_OWN}.image_feature.Image", "tfds cannot use .*features"),
        (_FEATURES, '"pythonClassName"', '"name"', "features.json: the data set has no pythonClassName: \\{"),
        (_FEATURES, '"sequence"', '"description"', "feature 'objects' does not have one content: none"),
        (_FEATURES, '"dtype": "uint8"', '"dtype": "picture"', "feature 'image' has the unknown dtype 'picture'"),
        (_FEATURES, '"boundingBox"', '"box"', "tfds cannot use .*features.json and dataset_info.json"),
        (_FEATURES, '"numClasses": "2"', '"numClasses": "3"', "'label' has 3 classes, but its labels.txt has 2 names"),
        (_FEATURES, '"numClasses": "2"', '"numClasses": "-2"', "'label' has -2 classes: write 1 to "),
        (_FEATURES, '"numClasses": "2"', '"numClasses": "100000"', "'label' has 100000 classes: write 1 to "),
        ("objects-label.labels.txt", "dog", "cat", "'label' has 2 classes, but its labels.txt has 1 names"),
        (_INFO, '"1.2.0"', '"one"', "dataset_info.json has no usable 'version': 'one'"),
        (_INFO, '"1.2.0"', "7", "dataset_info.json has no usable 'version': 7"),
        (_INFO, '"small"', "null", "dataset_info.json has no usable 'name': None"),
        (_INFO, '"splits": [', '"splits": [3, ', "dataset_info.json has no usable 'splits': \\[3, "),
        (_INFO, '"splits"', '"parts"', "dataset_info.json has no usable 'splits': None"),
        (_INFO, '"array_record"', '"floppy"', "tfds cannot use .*floppy"),
        (_INFO, '"name": "train"', '"name": ""', "split 0 has no usable 'name': ''"),
        (_INFO, '"1"\n', '"-1"\n', "split 0 has no usable 'shardLengths': \\["),
        (_INFO, '"1"\n', f"{'9' * 400}\n", "split 0 has no usable 'shardLengths': \\["),
        (_INFO, '"1"\n', '"1000000000000"\n', r"counts 1000000000000 records in .*small-train.*, which has 1"),
        (_INFO, '"1"\n', '"0"\n', "tfds cannot use .*"),
    ],
)
def test_a_damaged_description_is_one_message_with_the_file_and_the_reason(changed, file, old, new, message):
    _refused(changed(file, old, new), message)


def test_a_missing_description_is_named(changed):
    folder = changed(_FEATURES, "{", "{")
    (folder / _FEATURES).unlink()
    _refused(folder, "there is no file .*features.json, which describes the data set")
    (folder / _FEATURES).write_text("[]")
    _refused(folder, "features.json is a list, not a json object")


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbfcat\ndog\n", b"c\x83t\ndog\n"])
def test_a_list_of_class_names_that_tfds_would_misread_is_refused(changed, data):
    folder = changed("features.json", "Image", "Image")
    (folder / "objects-label.labels.txt").write_bytes(data)
    _refused(folder, "objects-label.labels.txt (cannot be read|has no names|begins with a byte order mark)")


def test_what_stands_in_the_place_of_a_list_of_class_names_is_not_opened(changed):
    folder = changed("features.json", "Image", "Image")
    (folder / "objects-label.labels.txt").unlink()
    os.mkfifo(folder / "objects-label.labels.txt")
    _refused(folder, "objects-label.labels.txt cannot be read .*it is a pipe")
