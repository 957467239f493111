"""Reads a data set of TensorFlow Datasets (tfds) in ArrayRecord files, without TensorFlow."""

import collections
import concurrent.futures
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolox_jax.boxes import clip_xyxy, norm_yxyx_to_xyxy, xywh_to_xyxy, xyxy_to_xywh
from yolox_jax.data import images
from yolox_jax.data.images import ImageConfig, ImageError
from yolox_jax.data.sources import problems, tfds_files
from yolox_jax.errors import UserError
from yolox_jax.types import Example, Problem

_OBJECT = np.dtype([("label", np.int32), ("xywh", np.float64, 4), ("area", np.float64), ("iscrowd", np.bool_)])


class TfdsSource:
    """A split of a tfds data set, in its own order. Label k is the k-th name of the label feature.

    Three features may be missing: without ids, an image's id is its index; without is_crowd, no object is a crowd;
    without areas, they are those of the boxes. The boxes to learn are chosen as in CocoSource: no crowds, area > 0,
    clipped. A record is read only when it is needed; its faults are then logged and added to `problems`, once.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        features: Mapping[str, str] | None = None,
        image_config: ImageConfig = ImageConfig(),
    ):
        """Opens a split.

        Args:
          root: the folder of one version, or a folder that has only one version in it.
          split: a name, or a part such as "train[:80%]".
          features: the names that differ from the defaults of `tfds_files.FeatureNames`.
          image_config: how images are decoded.

        Raises:
          UserError: there is no such data set, split or feature.
        """
        folder = tfds_files.find_version(Path(root))
        builder = tfds_files.open_builder(folder)
        self.problems: list[Problem] = []
        self._arguments = (str(folder), split, dict(features or {}), image_config)
        self._name = f"{folder} ({split})"
        self._names = tfds_files.feature_names(builder.info.features, self._arguments[2], folder)
        of_object = builder.info.features[self._names.objects].feature
        self.class_names = tfds_files.class_names(of_object[self._names.label], self._names.label, folder)
        area = self._names.area
        self._areas_are_whole = area is not None and np.issubdtype(of_object[area].np_dtype, np.integer)
        self._records = tfds_files.open_records(builder, split, folder)
        self._sizes_hw: dict[int, tuple[int, int]] = {}  # of the images decoded so far
        self._unreadable: set[int] = set()  # images that ground_truth has logged as unreadable
        self._seen: set[tuple[int, int]] = set()  # (record, object) of each problem
        self._num_of_kind: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:  # each worker process opens the files itself
        return TfdsSource, self._arguments

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        record = self._record(index)
        decoded = self._decode(index, record)
        objects = self._objects(index, record, decoded.whole_hw)
        objects = objects[~objects["iscrowd"]]
        boxes_xyxy = clip_xyxy(xywh_to_xyxy(objects["xywh"]), decoded.whole_hw).astype(np.float32)
        return Example(decoded.pixels, decoded.boxes(boxes_xyxy), objects["label"].copy(), self._id(index, record))

    def image_id(self, index: int) -> int | str:
        """Returns the image's id, or its index if the record cannot be read."""
        try:
            return self._id(index, self._record(index))
        except ImageError:
            return index

    def num_boxes(self, index: int) -> int:
        return len(self.labels(index))

    def labels(self, index: int) -> np.ndarray:
        # Any image size will do, since the choice of boxes to learn does not depend on it; the real one needs decoding.
        objects = self._objects(index, self._record(index), (1, 1))
        return objects["label"][~objects["iscrowd"]]

    def encoded(self, index: int) -> bytes:
        """Returns the image's bytes as they are in the record, usually JPEG or PNG."""
        return bytes(self._record(index)[self._names.image])

    def ground_truth(self) -> dict[str, Any]:
        """Returns all records, crowds included, boxes unclipped, in pixels.

        Category ids are label + 1, annotations are numbered from 1. The files have boxes as fractions of the image, so
        each image that was not decoded before is decoded here for its size (benchmarks/NOTES.md). An image that cannot
        be decoded is logged, and listed with a size of one pixel and without boxes.

        Raises:
          UserError: two images have the same id.
        """
        truth: dict[str, Any] = {"images": [], "annotations": []}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for index, (id, (height, width), objects) in enumerate(pool.map(self._annotated, range(len(self)))):
                name = self._record_name(index)
                truth["images"].append({"id": id, "file_name": name, "width": width, "height": height})
                for label, xywh, area, iscrowd in objects.tolist():
                    annotation = {"id": len(truth["annotations"]) + 1, "image_id": id, "category_id": label + 1}
                    annotation |= {"bbox": list(xywh), "area": area, "iscrowd": int(iscrowd)}
                    truth["annotations"].append(annotation)
        ids = collections.Counter(image["id"] for image in truth["images"])
        repeated = [id for id, count in ids.items() if count > 1]
        if repeated:
            raise UserError(
                f"{self._name}: image id {repeated[0]!r} occurs {ids[repeated[0]]} times ({len(repeated)} such ids)",
                "name another feature by config.data.tfds.image_id",
            )
        truth["categories"] = [{"id": label + 1, "name": name} for label, name in enumerate(self.class_names)]
        return truth

    def _annotated(self, index: int) -> tuple[int | str, tuple[int, int], np.ndarray]:
        """Returns the id, height and width, and objects (`_OBJECT` rows) of an image."""
        try:
            record = self._record(index)
            if index not in self._sizes_hw:
                self._decode(index, record)
        except ImageError as error:
            if index not in self._unreadable:
                self._unreadable.add(index)
                problems.logger.warning(
                    "%s, so its boxes are left out of the ground truth: %s", error.what, error.advice
                )
            return self.image_id(index), (1, 1), np.zeros(0, _OBJECT)
        id = self._id(index, record)
        return id, self._sizes_hw[index], self._objects(index, record, self._sizes_hw[index])

    def _record(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        try:
            return self._records[index]
        except Exception as error:  # array_record, protobuf and tfds each have their own errors
            raise ImageError(
                f"{self._record_name(index)} cannot be read ({error})", "copy or write the data set again"
            ) from error

    def _decode(self, index: int, record: dict[str, Any]) -> images.Decoded:
        decoded = images.decode_to_fit(record[self._names.image], self._record_name(index), self._arguments[3])
        self._sizes_hw[index] = decoded.whole_hw
        return decoded

    def _id(self, index: int, record: dict[str, Any]) -> int | str:
        name = self._names.image_id
        if name is None:
            return index
        id = record[name]
        return id.decode() if isinstance(id, bytes) else int(id)

    def _objects(self, index: int, record: dict[str, Any], size_hw: tuple[int, int]) -> np.ndarray:
        """Returns a record's usable objects as `_OBJECT` rows in pixels of an image of `size_hw`; reports faults."""
        height, width = size_hw
        columns, names = record[self._names.objects], self._names
        norm_yxyx = np.asarray(columns[names.bbox], np.float64).reshape(-1, 4)
        of_objects = (names.bbox, names.label, names.is_crowd, names.area)
        lengths = {name: len(columns[name]) for name in of_objects if name is not None}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
            raise ImageError(f"{self._record_name(index)} has {counts}", "copy or write the data set again")
        rows = np.zeros(len(norm_yxyx), _OBJECT)
        rows["xywh"] = xyxy_to_xywh(norm_yxyx_to_xyxy(norm_yxyx, size_hw))
        labels = np.asarray(columns[names.label], np.int64)
        rows["label"] = labels
        rows["iscrowd"] = False if names.is_crowd is None else columns[names.is_crowd]
        box_areas = rows["xywh"][:, 2] * rows["xywh"][:, 3]
        areas = box_areas if names.area is None else np.asarray(columns[names.area], np.float64)
        # coco/2017 truncates its areas to whole numbers, so an object with area 0 is smaller than one pixel.
        rows["area"] = np.where(areas == 0, box_areas, areas) if self._areas_are_whole else areas

        is_usable = np.ones(len(rows), np.bool_)
        for number, (row, box) in enumerate(zip(rows, norm_yxyx.tolist(), strict=True)):
            kind, found = problems.box_fault(row["xywh"].tolist(), width, height), f"ymin, xmin, ymax, xmax {box}"
            usable = kind in (None, problems.PARTLY_OUTSIDE)
            if not 0 <= labels[number] < len(self.class_names):
                kind, found, usable = problems.UNKNOWN_CATEGORY, f"label {labels[number]}", False
            elif usable and not (np.isfinite(row["area"]) and row["area"] > 0):
                kind, found, usable = problems.NO_AREA, f"area {row['area']}", False
            if kind is not None:
                self._report(index, number, kind, found, "clipped for training" if usable else "object left out")
            is_usable[number] = usable
        return rows[is_usable]

    def _report(self, index: int, number: int, kind: str, found: str, action: str) -> None:
        with self._lock:
            if (index, number) in self._seen:
                return
            self._seen.add((index, number))
            num_left_out = 0 if kind == problems.PARTLY_OUTSIDE else 1
            problem = Problem(kind, self._name, f"record {index}, object {number}", found, action, num_left_out)
            self.problems.append(problem)
            self._num_of_kind[kind] += 1
            if self._num_of_kind[kind] <= problems.LINES_PER_KIND:
                problems.logger.warning("%s", problem)
            elif self._num_of_kind[kind] == problems.LINES_PER_KIND + 1:
                problems.logger.warning("%s: %s: more like these, not listed", self._name, kind)

    def _record_name(self, index: int) -> str:
        return f"{self._name}: record {index}"
