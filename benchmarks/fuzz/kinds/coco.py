"""COCO: a json of annotations and a folder of images, judged by a plain loop over the json."""

import json
import math
import random
from pathlib import Path
from typing import Any

from benchmarks.fuzz import file_faults, json_faults
from benchmarks.fuzz.change import Change, Judged, Kind
from benchmarks.fuzz.kinds import data_set
from benchmarks.fuzz.kinds.data_set import HEIGHT, NUM_IMAGES, WIDTH, Box, ReadSet
from yolox_jax.data.sources import problems

_JSON = "annotations.json"


def make(folder: Path) -> None:
    annotations: list[dict[str, Any]] = []
    for image in range(NUM_IMAGES):
        data_set.write_picture(folder / "images" / f"{image}.png", image)
        for name, x1, y1, x2, y2 in made_boxes(image):
            number, category = len(annotations) + 1, {"cat": 3, "dog": 7}[name]
            record = {"id": number, "image_id": image + 1, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append(record | {"area": (x2 - x1) * (y2 - y1), "iscrowd": 0})
    images = [
        {"id": image + 1, "file_name": f"{image}.png", "width": WIDTH, "height": HEIGHT} for image in range(NUM_IMAGES)
    ]
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / _JSON).write_text(json.dumps(content, indent=1))


def made_boxes(image: int) -> list[Box]:
    """Returns the boxes of an image before any change."""
    return [(("dog", "cat")[box % 2], 4 + 3 * box, 2 + image, 14.5 + 4 * box, 14 + 2 * image) for box in range(3)]


def change(folder: Path, rng: random.Random) -> Change:
    file = folder / _JSON
    chosen = rng.random()
    if chosen < 0.6:
        return json_faults.change_json(file, rng)
    if chosen < 0.7:
        return file_faults.change_text(file, rng)
    if chosen < 0.8:
        return file_faults.change_bytes(file, rng)
    if chosen < 0.85:
        return file_faults.replace_file(file, rng)
    if chosen < 0.95:
        return file_faults.replace_file(file_faults.choose_file(folder / "images", rng), rng)
    return file_faults.change_bytes(file_faults.choose_file(folder / "images", rng), rng)


def read(folder: Path) -> ReadSet:
    named = {"train": _JSON, "train_images": "images", "val": _JSON, "val_images": "images"}
    return data_set.read({"kind": "coco", "root": str(folder), **named})


def judge(folder: Path, change: Change, result: ReadSet) -> Judged:
    content = json.loads((folder / _JSON).read_bytes())
    names = {_id(category["id"]): category["name"] for category in content["categories"]}
    if result.class_names != tuple(names[id] for id in sorted(names)):
        return Judged(f"classes {result.class_names}, expected {names}")
    boxes = _boxes(content, names)
    listed = {_id(image["id"]): image for image in content["images"]}
    for image in result.images:
        record = listed[image.id]
        wrong = "" if image.pixels is None else data_set.difference(image.boxes, boxes[image.id])
        if (int(record["width"]), int(record["height"])) == (WIDTH, HEIGHT):
            wrong = wrong or data_set.wrong_pixels(image, folder / "images" / record["file_name"])
        if wrong:
            return Judged(f"image {image.id}: {wrong}")
    found = {image.id for image in result.images}
    lost = [
        id for id, image in listed.items() if (folder / "images" / image["file_name"]).is_file() and id not in found
    ]
    if lost:
        return Judged(f"images {lost} are there, but left out")
    num_left_out = sum(problem.num_left_out for problem in result.problems if problem.kind != problems.MANY_CROWDS)
    num_found, num_listed = len(result.truth["annotations"]), len(content["annotations"])
    if num_found + num_left_out != num_listed:
        return Judged(f"{num_found} annotations are read and {num_left_out} reported, of {num_listed}")
    return Judged()


def _boxes(content: Any, names: dict[Any, str]) -> dict[Any, list[Box]]:
    """Returns the boxes to learn of each image."""
    sizes = {_id(image["id"]): (int(image["width"]), int(image["height"])) for image in content["images"]}
    boxes: dict[Any, list[Box]] = {id: [] for id in sizes}
    for record in content["annotations"]:
        image, category, bbox = _id(record.get("image_id")), _id(record.get("category_id")), record.get("bbox")
        area = record.get("area")
        if not (_is_id(image) and image in sizes and _is_id(category) and category in names):
            continue
        if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox))):
            continue
        if not (area is None or (_is_number(area) and area > 0)):
            continue
        x, y, width, height = bbox
        is_inside = x < sizes[image][0] and y < sizes[image][1] and x + width > 0 and y + height > 0
        if width > 0 and height > 0 and is_inside and record.get("iscrowd") not in (1, True):
            boxes[image].append(data_set.clipped(names[category], x, y, x + width, y + height, sizes[image]))
    return boxes


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 10**18  # longer ones may not fit 64 bits
    return isinstance(value, float) and math.isfinite(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _id(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


KIND = Kind("coco", make, change, read, judge)
