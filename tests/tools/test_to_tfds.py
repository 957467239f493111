"""to_tfds on small data sets: kind "tfds" reads back what was written, and an interrupted run leaves no data set."""

import json
import signal
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from configs import base
from tests import programs
from tests.material import ROOT
from yolox_jax.data.prefetch import Shard
from yolox_jax.data.sources import tfds_writer
from yolox_jax.data.sources.coco import CocoSource
from yolox_jax.data.sources.open import open_split
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.sources.tfds import TfdsSource
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.tools import to_tfds

HEIGHT, WIDTH = 40, 60


def _turned(jpeg: bytes) -> bytes:
    """The same JPEG with an EXIF orientation of a quarter turn."""
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.fixture
def coco(tmp_path):
    """Five images and their json: fractional boxes, a crowd, an image without boxes, two with an EXIF orientation."""
    rng = np.random.default_rng(0)
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.png", "c.bmp", "as_stored.jpg", "as_shown.jpg"):
        pixels = cv2.resize(rng.integers(256, size=(5, 7, 3), dtype=np.uint8), (WIDTH, HEIGHT))
        data = cv2.imencode(name[-4:], pixels)[1].tobytes()
        (tmp_path / "images" / name).write_bytes(_turned(data) if name.startswith("as_") else data)
    width, height = {"width": WIDTH, "height": HEIGHT}, {"width": HEIGHT, "height": WIDTH}
    box = {"image_id": 139, "category_id": 7, "area": 81.53, "iscrowd": 0}
    content = {
        "images": [
            {"id": 139, "file_name": "a.jpg", **width},
            {"id": 42, "file_name": "sub/b.png", **width},
            {"id": 7, "file_name": "c.bmp", **width},
            {"id": 8, "file_name": "as_stored.jpg", **width},
            {"id": 9, "file_name": "as_shown.jpg", **height},
        ],
        "annotations": [
            box | {"id": 11, "bbox": [10.37, 9.81, 20.11, 5.03]},
            box | {"id": 12, "bbox": [0, 0, 50.3, 30.7], "iscrowd": 1},
            box | {"id": 13, "bbox": [0, 0, 60, 40], "category_id": 90, "area": 0.31},
            box | {"id": 14, "bbox": [58.99, 38.7, 1.01, 1.3], "image_id": 7},
            box | {"id": 15, "bbox": [40, 10, 19, 17], "image_id": 8},
            box | {"id": 16, "bbox": [10, 40, 17, 19], "image_id": 9},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 7, "name": "traffic light"}],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    return tmp_path


def _open(coco) -> CocoSource:
    return CocoSource(coco / "all.json", coco / "images")


def _config(coco):
    config = base.get_config()
    config.data.update(root=str(coco), train="all.json", train_images="images", val="all.json", val_images="images")
    return config


def _comparable(truth):
    """Ground truth without file names and category ids, which may differ."""
    label_of = {category["id"]: label for label, category in enumerate(truth["categories"])}
    images = [(image["id"], image["width"], image["height"]) for image in truth["images"]]
    annotations = [
        (each["id"], each["image_id"], label_of[each["category_id"]], each["iscrowd"]) for each in truth["annotations"]
    ]
    numbers = np.array([[*each["bbox"], each["area"]] for each in truth["annotations"]])
    return images, annotations, [category["name"] for category in truth["categories"]], numbers


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("val", "validation")])
def test_a_data_set_that_was_written_is_read_back_unchanged(coco, tmp_path, capsys, split, name):
    to_tfds.run(_config(coco), tmp_path / "out", "small")
    assert "train 5 images, validation 5 images" in capsys.readouterr().out
    data = {"kind": "tfds", "root": str(tmp_path / "out" / "small" / "1.0.0"), split: name}
    source, original = open_split(data, split), _open(coco)
    assert len(source) == len(original)
    for index in range(len(original)):
        expected, found = original[index], source[index]
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-4)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.image_id == expected.image_id == source.image_id(index)
        assert source.num_boxes(index) == len(expected.boxes_xyxy)
    *found, numbers = _comparable(source.ground_truth())
    *expected, expected_numbers = _comparable(original.ground_truth())
    assert found == expected
    np.testing.assert_allclose(numbers, expected_numbers, atol=1e-4)
    assert source.problems == []


def test_images_keep_their_bytes_unless_their_boxes_ignore_the_exif_orientation(coco, tmp_path):
    folder, _ = tfds_writer.write({"train": _open(coco)}, tmp_path, "small")
    source = TfdsSource(folder, "train")
    files = [coco / "images" / name for name in ("a.jpg", "sub/b.png", "c.bmp", "as_stored.jpg", "as_shown.jpg")]
    kept = [source.encoded(index) == file.read_bytes() for index, file in enumerate(files)]
    assert kept == [True, True, True, False, True]
    assert source.encoded(3).startswith(b"\x89PNG")


def test_only_images_larger_than_max_side_are_shrunk_with_their_boxes_and_areas(coco, tmp_path):
    cv2.imwrite(str(coco / "images" / "c.bmp"), np.zeros((HEIGHT // 2, WIDTH // 2, 3), np.uint8))
    content = json.loads((coco / "all.json").read_text())
    content["images"][2] |= {"width": WIDTH // 2, "height": HEIGHT // 2}
    content["annotations"] = content["annotations"][:1]
    (coco / "all.json").write_text(json.dumps(content))
    folder, _ = tfds_writer.write({"train": _open(coco)}, tmp_path, "small", max_side=30)
    source, original = TfdsSource(folder, "train"), _open(coco)
    assert source[0].image.shape == (20, 30, 3)
    reference = cv2.resize(original[0].image, (30, 20), interpolation=cv2.INTER_AREA)
    assert source.encoded(0) == cv2.imencode(".jpg", reference, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    np.testing.assert_allclose(source[0].boxes_xyxy, original[0].boxes_xyxy / 2, atol=1e-4)
    np.testing.assert_allclose(source.ground_truth()["annotations"][0]["area"], 81.53 / 4, rtol=1e-6)
    assert source.encoded(2) == (coco / "images" / "c.bmp").read_bytes()
    assert [source[index].image.shape[:2] for index in (3, 4)] == [(20, 30), (30, 20)]


def test_a_source_without_image_files_is_written_losslessly(tmp_path):
    original = ShapesSource(num_images=12, seed=3)
    calls = []
    folder, num_written = tfds_writer.write(
        {"train": original, "validation": ShapesSource(2, 1)}, tmp_path, "shapes", progress=lambda *n: calls.append(n)
    )
    assert num_written == {"train": 12, "validation": 2}
    assert calls == [(number, 14) for number in range(1, 15)]
    source = TfdsSource(folder, "train")
    for index in range(len(original)):
        np.testing.assert_array_equal(source[index].image, original[index].image)
        np.testing.assert_allclose(source[index].boxes_xyxy, original[index].boxes_xyxy, atol=1e-4)
    assert _comparable(source.ground_truth())[:3] == _comparable(original.ground_truth())[:3]


@pytest.mark.parametrize("num_processes", [2, 3])
def test_several_processes_write_the_files_that_one_writes(tmp_path, monkeypatch, num_processes):
    monkeypatch.setattr(tfds_writer, "_IMAGES_PER_FILE", 3)
    splits = {"train": ShapesSource(10, 3), "validation": ShapesSource(2, 1)}
    alone, num_written = tfds_writer.write(splits, tmp_path / "alone", "small")
    barrier, contents = threading.Barrier(num_processes), [b""] * num_processes

    def write(index: int):
        def exchange(content: bytes) -> list[bytes]:
            contents[index] = content
            barrier.wait()
            gathered = list(contents)
            barrier.wait()
            return gathered

        shard = Shard(index, num_processes)
        return tfds_writer.write(splits, tmp_path / "together", "small", shard=shard, exchange=exchange)

    with ThreadPoolExecutor(num_processes) as threads:
        together = list(threads.map(write, range(num_processes)))
    folder = tmp_path / "together" / "small" / "1.0.0"
    assert together == [(folder, num_written)] * num_processes
    read = {
        root: {file.name: file.read_bytes() for file in root.iterdir() if "array_record" in file.name}
        for root in (alone, folder)
    }
    assert read[alone] == read[folder] and len(read[alone]) == 5
    assert [file.name for file in sorted(alone.iterdir())] == [file.name for file in sorted(folder.iterdir())]
    assert (
        json.loads((alone / "dataset_info.json").read_text())["splits"]
        == (json.loads((folder / "dataset_info.json").read_text())["splits"])
    )
    source = TfdsSource(folder, "train")
    assert [source.image_id(index) for index in range(10)] == [splits["train"].image_id(index) for index in range(10)]


def test_a_tfds_data_set_with_string_ids_is_converted_again(coco, tmp_path):
    content = json.loads((coco / "all.json").read_text())
    for records, key in ((content["images"], "id"), (content["annotations"], "image_id")):
        for record in records[1:]:
            record[key] = f"nr {record[key]}" if record[key] != 139 else 139
    (coco / "all.json").write_text(json.dumps(content))
    first, _ = tfds_writer.write({"train": _open(coco)}, tmp_path, "first")
    second, _ = tfds_writer.write({"train": TfdsSource(first, "train")}, tmp_path, "second")
    source = TfdsSource(second, "train")
    assert [source.image_id(index) for index in range(5)] == ["139", "nr 42", "nr 7", "nr 8", "nr 9"]
    assert _comparable(source.ground_truth())[:3] == _comparable(TfdsSource(first, "train").ground_truth())[:3]


def test_boxes_that_only_training_uses_are_still_ignored_by_evaluation(tmp_path):
    class Difficult(ShapesSource):  # as VOC's
        def ground_truth(self):
            truth = super().ground_truth()
            truth["annotations"][0]["iscrowd"] = 1
            return truth

    original = Difficult(4, 0)
    folder, _ = tfds_writer.write({"train": original, "validation": original}, tmp_path, "small")
    train, val = TfdsSource(folder, "train"), TfdsSource(folder, "validation")
    assert [train.num_boxes(index) for index in range(4)] == [original.num_boxes(index) for index in range(4)]
    assert val.ground_truth()["annotations"][0]["iscrowd"] == 1


def test_images_that_cannot_be_read_are_reported_and_left_out(coco, tmp_path, caplog, capsys):
    (coco / "images" / "a.jpg").write_bytes(b"no image")
    cv2.imwrite(str(coco / "images" / "c.bmp"), np.zeros((3, 3, 3), np.uint8))
    to_tfds.run(_config(coco), tmp_path / "out", "small")
    output = capsys.readouterr()
    assert "warning: 4 images could not be read" in output.err
    assert "read 10/10 images" in output.out
    assert "a.jpg cannot be decoded" in caplog.text
    assert "c.bmp (image 7) is 3x3 pixels but 60x40" in caplog.text
    source = TfdsSource(tmp_path / "out", "train")
    assert [source.image_id(index) for index in range(len(source))] == [42, 8, 9]
    assert {each["image_id"] for each in source.ground_truth()["annotations"]} == {8, 9}


def test_a_split_without_a_readable_image_is_an_error_and_leaves_no_files(coco, tmp_path):
    for file in (coco / "images").glob("**/*.*"):
        file.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 5 images of train can be read"):
        tfds_writer.write({"train": _open(coco)}, tmp_path / "out", "small")
    assert list((tmp_path / "out" / "small").iterdir()) == []


def test_an_existing_data_set_is_not_overwritten(coco, tmp_path):
    folder, _ = tfds_writer.write({"train": _open(coco)}, tmp_path, "small")
    before = sorted((file.name, file.stat().st_mtime_ns) for file in folder.iterdir())
    with pytest.raises(UserError, match=r"small/1\.0\.0 exists already: remove it, or give another --output or --name"):
        tfds_writer.write({"train": _open(coco)}, tmp_path, "small")
    assert sorted((file.name, file.stat().st_mtime_ns) for file in folder.iterdir()) == before
    assert [each.name for each in folder.parent.iterdir()] == ["1.0.0"]


def test_two_runs_cannot_write_the_same_data_set(coco, tmp_path):
    def second_run(num_done, num_all):
        with pytest.raises(UserError, match="another run is writing"):
            tfds_writer.write({"train": _open(coco)}, tmp_path, "small")

    folder, _ = tfds_writer.write({"train": _open(coco)}, tmp_path, "small", progress=second_run)
    assert len(TfdsSource(folder, "train")) == 5


@pytest.mark.parametrize(
    ("name", "class_names", "max_side", "message"),
    [
        ("my set", ("a",), None, "'my set' cannot name a tfds data set"),
        ("small", ("a", " b"), None, "cannot keep the class name ' b'"),
        ("small", ("a", "b", "a"), None, "cannot keep the class name 'a'"),
        ("small", ("a",), 0, "max_side is 0"),
    ],
)
def test_names_that_tfds_cannot_store_are_errors(tmp_path, name, class_names, max_side, message):
    source = ShapesSource(2, 0)
    source.class_names = class_names
    with pytest.raises(UserError, match=message):
        tfds_writer.write({"train": source}, tmp_path, name, max_side=max_side)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_data_set(tmp_path, stop):
    arguments = [f"--config={ROOT / 'configs' / 'quickstart.py'}", "--config.data.shapes.num_train=5000"]
    arguments += [f"--output={tmp_path}", "--name=small"]
    unfinished = tmp_path / "small" / "1.0.0.unfinished"
    run = programs.start("-m yolox_jax.tools.to_tfds", arguments, tmp_path)
    run.wait_for(lambda: any(unfinished.glob("*/*.array_record-*")))
    run.send(stop)
    finished = run.end(130 if stop == signal.SIGINT else -stop)
    left = [each.name for each in (tmp_path / "small").iterdir()]
    if stop == signal.SIGINT:
        assert left == []
        assert finished.stderr.endswith("interrupted\n")
    else:
        assert left == ["1.0.0.unfinished"]
        with pytest.raises(NotFoundError, match="no tfds data set is in"):
            TfdsSource(tmp_path, "train")
        folder, _ = tfds_writer.write({"train": ShapesSource(2, 0)}, tmp_path, "small")
        assert [each.name for each in folder.parent.iterdir()] == ["1.0.0"]
