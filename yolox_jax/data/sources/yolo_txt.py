"""A data set in YOLO's text format: a yaml, images, and beside them one text file of boxes an image."""

import collections
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from yolox_jax.boxes import xyxy_to_xywh
from yolox_jax.data import images
from yolox_jax.data.sources import coco_format, problems, yolo_yaml
from yolox_jax.data.sources.problems import Problem
from yolox_jax.types import Example

_BOX = np.dtype([("image", np.int64), ("label", np.int32), ("norm_xyxy", np.float64, 4)])
_ROUNDING = 0.01  # of a side: how far tools pass the border by rounding; pixels are further off
_UNKNOWN_SIZE_HW = (640, 640)  # of an image that cannot be read: its boxes stay, as ones that are not found


class YoloTxtSource:
    """The images of "train" or "val" of a yaml, in order of their paths; those without boxes stay, as negatives.

    The labels of …/images/a/1.jpg are …/labels/a/1.txt: lines of `class cx cy w h`, or `class x1 y1 x2 y2 …` for a
    polygon, whose bounding box is taken, all in fractions of the image as shown. All label files are read here: 17,000
    take about 2 s. An image's id is its path relative to the yaml's `path`. What is wrong in the files is in
    `problems`, and logged. A file that cannot be a data set is a ValueError.
    """

    def __init__(self, yaml_file: str | Path, split: str = "train"):
        self.problems: list[Problem] = []
        content = yolo_yaml.read(yaml_file)
        self.class_names = content.class_names

        self._paths: list[str] = []
        rows: list[tuple[Any, ...]] = []
        self._used_ids: collections.Counter[int] = collections.Counter()
        num_labelled = 0
        listed = yolo_yaml.find_images(content, split, self.problems)
        for path in listed:
            file = yolo_yaml.label_file(path)
            try:
                text = _read_text(file)
            except (OSError, ValueError) as error:  # ValueError: no utf-8
                self._add_problem(problems.UNREADABLE_ANNOTATIONS, file, "file", str(error), "image left out")
                continue
            if text is not None:
                num_labelled += 1
                rows += [(len(self._paths), *box) for box in self._usable_boxes(text, file)]
            self._paths.append(path)
        if self._paths and num_labelled == 0:
            found = f"none for {len(self._paths)} images, the first would be {yolo_yaml.label_file(self._paths[0])}"
            action = "all images taken as negatives"
            self._add_problem(problems.MISSING_ANNOTATIONS, content.file, split, found, action)
        self.problems += problems.shifted_ids(self._used_ids, range(len(self.class_names)), content.file)
        problems.log_problems(self.problems)
        if not self._paths:
            raise ValueError(
                f"{content.file} ({split}): none of the {len(listed)} images found is usable; check {split} and path"
            )
        self._boxes = np.array(rows, _BOX)
        # Image i owns the boxes from _starts[i] to _starts[i + 1].
        self._starts = np.searchsorted(self._boxes["image"], np.arange(len(self._paths) + 1))
        self._ids = [Path(os.path.relpath(path, content.path)).as_posix() for path in self._paths]
        self._sizes_hw = np.zeros((len(self._paths), 2), np.int32)  # of the images decoded so far

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        pixels = images.read(self._paths[index])
        height, width = self._sizes_hw[index] = pixels.shape[:2]
        boxes = self._boxes[self._starts[index] : self._starts[index + 1]]
        boxes_xyxy = np.clip(boxes["norm_xyxy"], 0, 1) * (width, height, width, height)
        return Example(pixels, boxes_xyxy.astype(np.float32), boxes["label"].copy(), self._ids[index])

    def image_id(self, index: int) -> str:
        return self._ids[index]

    def num_boxes(self, index: int) -> int:
        return int(self._starts[index + 1] - self._starts[index])

    def encoded(self, index: int) -> bytes:
        """The image file as it is."""
        return images.read_bytes(self._paths[index])

    def ground_truth(self) -> dict[str, Any]:
        """All images and boxes, unclipped, in pixels.

        Only the images know their sizes, so each is decoded that was not before: a few milliseconds each and core. The
        sizes are kept, 8 bytes each. An image that cannot be read is logged, and has its boxes in a made-up size.
        """
        with ThreadPoolExecutor() as pool:
            sizes_hw = list(pool.map(self._size_hw, range(len(self))))
        scale_N4 = np.array(sizes_hw, np.float64)[self._boxes["image"]][:, [1, 0, 1, 0]]
        xyxy_N4 = self._boxes["norm_xyxy"] * scale_N4
        xywh_N4 = xyxy_to_xywh(xyxy_N4)
        columns = (self._boxes["image"].tolist(), self._boxes["label"].tolist(), xywh_N4.tolist())
        return coco_format.to_dict(
            self.class_names,
            [
                coco_format.ListedImage(id, path, width, height)
                for id, path, (height, width) in zip(self._ids, self._paths, sizes_hw, strict=True)
            ],
            (coco_format.ListedBox(*row, iscrowd=False) for row in zip(*columns, strict=True)),
        )

    def _size_hw(self, index: int) -> tuple[int, int]:
        if not self._sizes_hw[index].any():
            try:
                self._sizes_hw[index] = images.read(self._paths[index]).shape[:2]
            except images.ImageError as error:
                problems.logger.warning("%s: its boxes count as not found", error)
                self._sizes_hw[index] = _UNKNOWN_SIZE_HW
        height, width = self._sizes_hw[index].tolist()
        return height, width

    def _usable_boxes(self, text: str, file: str) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Label and normalised corners of each good line; the bad become problems."""
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words:
                continue
            fault, label, norm_xyxy = _judge(words, len(self.class_names))
            if label >= 0:
                self._used_ids[label] += 1
            if fault is not None:
                usable = fault == problems.PARTLY_OUTSIDE
                found = line if len(line) <= 80 else f"{line[:80]} …"
                action = "clipped for training" if usable else "line left out"
                self._add_problem(fault, file, f"line {number}", found, action)
                if not usable:
                    continue
            yield label, norm_xyxy

    def _add_problem(self, kind: str, file: str, record: str, found: str, action: str) -> None:
        self.problems.append(Problem(kind, file, record, found, action))


def _judge(words: list[str], num_classes: int) -> tuple[str | None, int, tuple[float, ...]]:
    """The fault of a line, its class id (-1 where it is none) and its box as normalised xyxy (empty in a useless line)."""
    useless: tuple[int, tuple[float, ...]] = (-1, ())
    try:
        first, *values = map(float, words)
    except ValueError:
        return problems.NOT_NUMBERS, *useless
    if not all(map(math.isfinite, (first, *values))):
        return problems.NOT_NUMBERS, *useless
    if not (first.is_integer() and 0 <= first < num_classes):
        return problems.UNKNOWN_CATEGORY, int(first) if first.is_integer() else -1, ()
    is_polygon = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not is_polygon:
        return problems.NOT_A_BOX, *useless
    if not all(-_ROUNDING <= value <= 1 + _ROUNDING for value in values):
        return problems.NOT_NORMALISED, *useless
    if is_polygon:
        x1, y1, x2, y2 = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    else:
        cx, cy, w, h = values
        x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    fault = problems.box_fault((x1, y1, x2 - x1, y2 - y1), 1, 1)  # whose own allowance is a pixel: a whole image here
    if fault is None and max(-x1, -y1, x2 - 1, y2 - 1) > _ROUNDING:
        fault = problems.PARTLY_OUTSIDE
    return fault, int(first), (x1, y1, x2, y2)


def _read_text(file: str) -> str | None:
    """None where there is no such file."""
    try:
        with open(file, encoding="utf-8-sig") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
