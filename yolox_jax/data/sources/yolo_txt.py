"""Reads a data set in YOLO's text format: a yaml, images, and one text file of boxes per image."""

import collections
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolox_jax.boxes import clip_xyxy, cxcywh_to_xyxy, norm_xyxy_to_xyxy, xyxy_to_xywh
from yolox_jax.data import files, images
from yolox_jax.data.images import ImageConfig
from yolox_jax.data.sources import class_names, coco_format, problems, usable, yolo_labels, yolo_layout, yolo_yaml
from yolox_jax.data.sources.problems import SourceError
from yolox_jax.data.sources.yolo_layout import Layout
from yolox_jax.types import Example, Problem

_BOX = np.dtype([("image", np.int64), ("label", np.int32), ("norm_xyxy", np.float64, 4)])
_ROUNDING = 0.01  # fraction of a side: tools exceed the image by less through rounding, values in pixels by more
_UNKNOWN_SIZE_HW = (640, 640)  # assumed for an unreadable image, whose boxes stay in the ground truth


class YoloTxtSource:
    """The images of "train" or "val" of a yaml, in the order of their paths, including those without boxes.

    The labels of …/images/a/1.jpg are in …/labels/a/1.txt; those of an image that is not below images/ are beside it.
    A line is `class cx cy w h`, or `class x1 y1 x2 y2 …` for the bounding box of a polygon, in fractions of the image
    after its EXIF rotation. Keypoints after a box are ignored: those that the yaml states by kpt_shape, and those that
    yolo_layout.py recognizes. All label files are read when the source is opened. An image's id is its path relative to
    the yaml's `path`. Faults in the files are logged and listed in `problems`.

    Raises:
      UserError: the yaml does not describe a detection data set, none of its images is usable, or all lines are faulty.
    """

    def __init__(
        self,
        yaml_file: str | Path,
        split: str = "train",
        *,
        merge_same_names: bool = False,
        image_config: ImageConfig = ImageConfig(),
        may_be_unusable: bool = False,  # for the doctor, which reports why
    ):
        self.problems: list[Problem] = []
        self._image_config = image_config
        content = yolo_yaml.read(yaml_file, image_config.max_file_mb)
        if not merge_same_names:
            names, ids = content.class_names, range(len(content.class_names))
            self.problems += class_names.check_different(names, ids, content.file, may_be_alike=may_be_unusable)
        self.class_names, self._labels = class_names.merge(content.class_names)

        self._paths: list[str] = []
        rows: list[tuple[Any, ...]] = []
        self._used_ids: collections.Counter[int] = collections.Counter()
        listed = yolo_yaml.find_images(content, split, self.problems, image_config.max_file_mb)
        label_files, unmatched = yolo_labels.find_label_files(content.path, listed, image_config.max_file_mb)
        self.problems += unmatched
        labels: list[tuple[int, str, str]] = []  # index of the image, label file and its text
        for path, file in zip(listed, label_files, strict=True):
            if file is not None:
                try:
                    labels.append((len(self._paths), file, files.read_text(file, image_config.max_file_mb)))
                except (OSError, ValueError) as error:  # ValueError: another encoding
                    self._add_problem(problems.UNREADABLE_ANNOTATIONS, file, "file", str(error), "image left out")
                    continue
            self._paths.append(path)
        layout = content.layout or self._recognized_layout(labels, content.file, split)
        for index, file, text in labels:
            rows += [(index, *box) for box in self._usable_boxes(text, file, layout)]
        if self._paths and not any(label_files):
            expected = yolo_labels.label_file(self._paths[0])
            found = f"none for {len(self._paths)} images, the first one expected is {expected}"
            action = "all images are used, without boxes"
            self._add_problem(problems.MISSING_ANNOTATIONS, content.file, split, found, action)
        self.problems += problems.shifted_ids(self._used_ids, range(len(self._labels)), content.file)
        problems.log_problems(self.problems)
        if not self._paths:
            num_missing = sum(problem.kind == problems.MISSING_FILE for problem in self.problems)
            raise SourceError(
                f"{content.file} ({split}): none of the {len(listed) + num_missing} images listed or found is usable"
                + (f"; the first fault is {self.problems[0]}" if self.problems else ""),
                f"check {split} and path",
                self.problems,
            )
        self._boxes = np.array(rows, _BOX)
        # Image i owns the boxes from _starts[i] to _starts[i + 1].
        self._starts = np.searchsorted(self._boxes["image"], np.arange(len(self._paths) + 1))
        self._ids = [Path(os.path.relpath(path, content.path)).as_posix() for path in self._paths]
        self._sizes_hw = np.zeros((len(self._paths), 2), np.int32)  # of the images decoded so far
        if not may_be_unusable:
            usable.check_faults(self, split)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        decoded = self._decode(index)
        boxes = self._boxes[self._starts[index] : self._starts[index + 1]]
        boxes_xyxy = clip_xyxy(norm_xyxy_to_xyxy(boxes["norm_xyxy"], decoded.whole_hw), decoded.whole_hw)
        boxes_xyxy = decoded.boxes(boxes_xyxy.astype(np.float32))
        return Example(decoded.pixels, boxes_xyxy, boxes["label"].copy(), self._ids[index])

    def image_id(self, index: int) -> str:
        return self._ids[index]

    def num_boxes(self, index: int) -> int:
        return int(self._starts[index + 1] - self._starts[index])

    def labels(self, index: int) -> np.ndarray:
        return self._boxes["label"][self._starts[index] : self._starts[index + 1]].copy()

    def encoded(self, index: int) -> bytes:
        """Returns the bytes of the image file."""
        return images.read_bytes(self._paths[index], self._image_config)

    def ground_truth(self) -> dict[str, Any]:
        """Returns all images and boxes, unclipped, in pixels.

        The label files do not state image sizes, so each image that was not decoded before is decoded here
        (benchmarks/NOTES.md). An image that cannot be read is logged, and its boxes are scaled to an assumed size.
        """
        with ThreadPoolExecutor() as pool:
            sizes_hw = list(pool.map(self._size_hw, range(len(self))))
        image_hw_N2 = np.array(sizes_hw, np.float64)[self._boxes["image"]]
        xywh_N4 = xyxy_to_xywh(norm_xyxy_to_xyxy(self._boxes["norm_xyxy"], image_hw_N2))
        columns = (self._boxes["image"].tolist(), self._boxes["label"].tolist(), xywh_N4.tolist())
        return coco_format.to_dict(
            self.class_names,
            [
                coco_format.ListedImage(id, path, width, height)
                for id, path, (height, width) in zip(self._ids, self._paths, sizes_hw, strict=True)
            ],
            (coco_format.ListedBox(*row, iscrowd=False) for row in zip(*columns, strict=True)),
        )

    def _decode(self, index: int) -> images.Decoded:
        path = self._paths[index]
        decoded = images.decode_to_fit(images.read_bytes(path, self._image_config), path, self._image_config)
        self._sizes_hw[index] = decoded.whole_hw
        return decoded

    def _size_hw(self, index: int) -> tuple[int, int]:
        if not self._sizes_hw[index].any():
            try:
                self._decode(index)
            except images.ImageError as error:
                problems.logger.warning("%s, so its boxes will count as missed: %s", error.what, error.advice)
                self._sizes_hw[index] = _UNKNOWN_SIZE_HW
        height, width = self._sizes_hw[index].tolist()
        return height, width

    def _recognized_layout(self, labels: Sequence[tuple[int, str, str]], yaml_file: str, split: str) -> Layout:
        evidence = yolo_layout.Evidence()
        for _, file, text in labels:
            evidence.add(file, text)
        layout = evidence.decide()
        if layout.length is not None:
            found = f"{layout.columns} after each box"
            self._add_problem(problems.MORE_COLUMNS, yaml_file, split, found, "only the boxes are used")
        return layout

    def _usable_boxes(self, text: str, file: str, layout: Layout) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Yields (label, normalized xyxy) of each usable line; adds each fault to `problems`."""
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        parsed = [_parse(line.split(), len(self._labels), layout) for _, line in lines]
        norm_xyxy_n4 = _norm_xyxy(parsed)
        norm_xywh_n4 = xyxy_to_xywh(norm_xyxy_n4)
        boxes = zip(norm_xyxy_n4.tolist(), norm_xywh_n4.tolist(), strict=True)
        for (number, line), each, (norm_xyxy, norm_xywh) in zip(lines, parsed, boxes, strict=True):
            if each.label >= 0:
                self._used_ids[each.label] += 1
            fault = each.fault or _box_fault(norm_xyxy, norm_xywh)
            if fault is not None:
                usable = fault == problems.PARTLY_OUTSIDE
                found = line if len(line) <= 80 else f"{line[:80]} …"
                action = "clipped for training" if usable else "line left out"
                self._add_problem(fault, file, f"line {number}", found, action, num_left_out=0 if usable else 1)
                if not usable:
                    continue
            yield self._labels[each.label], tuple(norm_xyxy)

    def _add_problem(self, kind: str, file: str, record: str, found: str, action: str, num_left_out: int = 0) -> None:
        self.problems.append(Problem(kind, file, record, found, action, num_left_out))


class _Line(NamedTuple):
    """The contents of one line of a label file."""

    fault: str | None
    label: int = -1  # -1 if the line has no class id
    is_polygon: bool = False
    values: tuple[float, ...] = (math.nan,) * 4  # normalized cxcywh, or the bounds of a polygon as xyxy


def _parse(words: list[str], num_classes: int, layout: Layout) -> _Line:
    try:
        first, *values = map(float, words)
    except ValueError:
        return _Line(problems.NOT_NUMBERS)
    if not all(map(math.isfinite, (first, *values))):
        return _Line(problems.NOT_NUMBERS)
    if not (first.is_integer() and 0 <= first < num_classes):
        return _Line(problems.UNKNOWN_CATEGORY, int(first) if first.is_integer() else -1)
    is_polygon = layout.is_polygon(len(values))
    if layout.is_box(len(values)):
        values = values[:4]
    elif not is_polygon:
        return _Line(problems.NOT_A_BOX)
    if not all(-_ROUNDING <= value <= 1 + _ROUNDING for value in values):
        return _Line(problems.NOT_NORMALISED)
    if is_polygon:
        values = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
    return _Line(None, int(first), is_polygon, tuple(values))


def _norm_xyxy(lines: Sequence[_Line]) -> np.ndarray:
    values_n4 = np.array([line.values for line in lines]).reshape(-1, 4)
    is_polygon_n1 = np.array([line.is_polygon for line in lines], np.bool_)[:, None]
    return np.where(is_polygon_n1, values_n4, cxcywh_to_xyxy(values_n4))


def _box_fault(norm_xyxy: Sequence[float], norm_xywh: Sequence[float]) -> str | None:
    """Returns the fault of a box, or None. A box that exceeds the image by more than `_ROUNDING` is partly outside."""
    x1, y1, x2, y2 = norm_xyxy
    fault = problems.box_fault(norm_xywh, 1, 1)  # this allows an overhang of 1 pixel, which is a whole side here
    if fault is None and max(-x1, -y1, x2 - 1, y2 - 1) > _ROUNDING:
        return problems.PARTLY_OUTSIDE
    return fault
