"""Reads one small data set from every file format, with the same result.

To add a format, add a function to `WRITERS` that writes `PICTURES` below a folder and returns the data section of a
config.
"""

import json

import cv2
import numpy as np
import pytest

from yolox_jax.data.sources import tfds_writer
from yolox_jax.data.sources.open import open_split

CLASS_NAMES = ("ant", "bee", "cell")  # sorted, as VOC's files would give them


def picture(seed, height, width, *objects):
    """Returns an encoded JPEG, its size, and (label, integer xyxy) of its objects."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes(), height, width, objects


PICTURES = {  # in the order of their names, as YOLO's format has them
    "a": picture(0, 41, 67, (2, (0, 0, 67, 41)), (0, (3, 5, 4, 7)), (2, (60, 30, 67, 41))),
    "b": picture(1, 33, 33),
    "c": picture(2, 97, 50, (1, (7, 11, 48, 90))),
    "d": picture(3, 29, 31, *((label, (label, 2, 10 + label, 28)) for label in (1, 0, 2, 1))),
}


def write_images(folder):
    folder.mkdir(parents=True)
    for name, (jpeg, *_) in PICTURES.items():
        (folder / f"{name}.jpg").write_bytes(jpeg)


def write_coco(root):
    write_images(root / "images")
    images, annotations = [], []
    for name, (_, height, width, objects) in PICTURES.items():
        images.append({"id": len(images) + 5, "file_name": f"{name}.jpg", "height": height, "width": width})
        for label, (x1, y1, x2, y2) in objects:
            bbox = [x1, y1, x2 - x1, y2 - y1]
            record = {"id": len(annotations), "image_id": images[-1]["id"], "category_id": 10 * label, "bbox": bbox}
            annotations.append(record)
    categories = [{"id": 10 * label, "name": name} for label, name in enumerate(CLASS_NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "train.json").write_text(json.dumps(content))
    return {"kind": "coco", "root": root, "train": "train.json", "train_images": "images"}


def write_voc(root):
    folder = root / "VOC2007"
    write_images(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for name, (_, height, width, objects) in PICTURES.items():
        parts = [f"<size><width>{width}</width><height>{height}</height></size>"]
        for label, (x1, y1, x2, y2) in objects:
            corners = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            parts.append(f"<object><name>{CLASS_NAMES[label]}</name><bndbox>{corners}</bndbox></object>")
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{''.join(parts)}</annotation>")
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("\n".join(PICTURES))
    return {"kind": "voc", "root": root, "train": "VOC2007/train"}


def write_yolo_txt(root):
    write_images(root / "images")
    (root / "labels").mkdir()
    for name, (_, height, width, objects) in PICTURES.items():
        lines = [
            f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"
            for label, (x1, y1, x2, y2) in objects
        ]
        (root / "labels" / f"{name}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text(f"train: images\nnames: [{', '.join(CLASS_NAMES)}]\n")
    return {"kind": "yolo_txt", "root": root}


def write_tfds(root):
    original = open_split(write_coco(root), "train")
    folder, _ = tfds_writer.write({"train": original}, root, "small")
    return {"kind": "tfds", "root": folder, "train": "train"}


WRITERS = {"coco": write_coco, "tfds": write_tfds, "voc": write_voc, "yolo_txt": write_yolo_txt}


@pytest.fixture(params=WRITERS)
def source(request, tmp_path):
    return open_split(WRITERS[request.param](tmp_path), "train")


def test_every_format_gives_the_same_examples(source):
    assert source.class_names == CLASS_NAMES
    assert len(source) == len(PICTURES)
    for index, (jpeg, _, _, objects) in enumerate(PICTURES.values()):
        example = source[index]
        np.testing.assert_array_equal(example.image, cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
        boxes_xyxy = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
        assert example.boxes_xyxy.dtype == np.float32
        np.testing.assert_allclose(example.boxes_xyxy, boxes_xyxy, rtol=1e-6, atol=1e-5)
        assert example.labels.dtype == np.int32
        assert example.labels.tolist() == [label for label, _ in objects]
        assert example.image_id == source.image_id(index)
        assert source.num_boxes(index) == len(objects)
        assert source.encoded(index) == jpeg


def test_every_format_gives_the_same_ground_truth(source):
    truth = source.ground_truth()
    assert [category["name"] for category in truth["categories"]] == list(CLASS_NAMES)
    label_of = {category["id"]: label for label, category in enumerate(truth["categories"])}
    sizes = [(image["height"], image["width"]) for image in truth["images"]]
    assert sizes == [(height, width) for _, height, width, _ in PICTURES.values()]
    assert [image["id"] for image in truth["images"]] == [source.image_id(index) for index in range(len(source))]
    expected = [(index, *each) for index, (*_, objects) in enumerate(PICTURES.values()) for each in objects]
    for record, (index, label, (x1, y1, x2, y2)) in zip(truth["annotations"], expected, strict=True):
        assert record["image_id"] == source.image_id(index)
        assert (label_of[record["category_id"]], record["iscrowd"]) == (label, 0)
        np.testing.assert_allclose(record["bbox"], [x1, y1, x2 - x1, y2 - y1], rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(record["area"], (x2 - x1) * (y2 - y1), rtol=1e-6)
    assert [record["id"] for record in truth["annotations"]] == list(range(1, len(expected) + 1))


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_is_reduced_with_its_boxes_and_keeps_its_ground_truth(kind, tmp_path):
    data = WRITERS[kind](tmp_path) | {"reduced_decoding": True}
    whole, reduced = open_split(data, "train"), open_split(data, "train", fit_hw=(16, 16))
    divisors = (4, 2, 4, 1)
    for index, (divisor, (jpeg, *_)) in enumerate(zip(divisors, PICTURES.values(), strict=True)):
        flag = getattr(cv2, f"IMREAD_REDUCED_COLOR_{divisor}", cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(reduced[index].image, cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag))
        np.testing.assert_array_equal(reduced[index].boxes_xyxy, whole[index].boxes_xyxy / divisor)
        np.testing.assert_array_equal(reduced[index].labels, whole[index].labels)
    assert reduced.ground_truth() == whole.ground_truth()
