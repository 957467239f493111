"""TensorFlow Datasets: two json files that describe ArrayRecord files, judged by what was written."""

import random
import shutil
import tempfile
from pathlib import Path

from benchmarks.fuzz import file_faults, json_faults
from benchmarks.fuzz.change import Change, Judged, Kind
from benchmarks.fuzz.kinds import coco, data_set
from benchmarks.fuzz.kinds.data_set import NUM_IMAGES, ReadSet
from yolox_jax.data.sources import tfds_files, tfds_writer
from yolox_jax.data.sources.coco import CocoSource

tfds_files.import_tfds()  # before the processes are forked: it takes long
_VERSION, _NAMES = "1.0.0", ("cat", "dog")


def make(folder: Path) -> None:
    """Writes the data set of kind coco by the writer of tools.to_tfds."""
    with tempfile.TemporaryDirectory() as original:
        coco.make(Path(original))
        source = CocoSource(Path(original) / "annotations.json", Path(original) / "images")
        written, _ = tfds_writer.write({"train": source}, folder / "made", "small")
    written.rename(folder / _VERSION)
    shutil.rmtree(folder / "made")


def change(folder: Path, rng: random.Random) -> Change:
    folder = folder / _VERSION
    described = rng.choice(sorted(folder.glob("*.json")))
    file = file_faults.choose_file(folder, rng)
    chosen = rng.random()
    if chosen < 0.6:
        return json_faults.change_json(described, rng)
    if chosen < 0.7:
        return Change(file_faults.change_text(described, rng).text)  # tfds takes plain UTF-8 only
    if chosen < 0.9:
        return file_faults.change_bytes(file, rng)
    return file_faults.replace_file(file, rng)


def read(folder: Path) -> ReadSet:
    return data_set.read({"kind": "tfds", "root": str(folder / _VERSION), "train": "train", "val": "train"})


def judge(folder: Path, change: Change, result: ReadSet) -> Judged:
    labels = next((folder / _VERSION).glob("*.labels.txt"), None)
    names = tuple(labels.read_text().split()) if labels is not None and labels.is_file() else result.class_names
    if result.class_names != names:
        return Judged(f"classes {result.class_names}, expected {names}")
    if len(result.images) != NUM_IMAGES:
        return Judged(f"{len(result.images)} images, expected {NUM_IMAGES}")
    for number, image in enumerate(result.images):
        if image.pixels is None:
            continue
        boxes = [(names[_NAMES.index(name)], x1, y1, x2, y2) for name, x1, y1, x2, y2 in coco.made_boxes(number)]
        wrong = data_set.difference(image.boxes, boxes)
        if image.pixels != data_set.checksum(data_set.picture(number)):
            wrong = "other pixels"
        if wrong:
            return Judged(f"record {number}: {wrong}")
    return Judged()


KIND = Kind("tfds", make, change, read, judge)
