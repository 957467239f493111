"""Reads a COCO data set: one json file of annotations and one folder of images."""

import collections
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolox_jax.boxes import clip_xyxy, xywh_to_xyxy
from yolox_jax.data import files, images
from yolox_jax.data.folders import Folders, find_each
from yolox_jax.data.images import ImageConfig
from yolox_jax.data.sources import class_names, coco_masks, problems, usable
from yolox_jax.data.sources.documents import DocumentError, parse_json, shortened
from yolox_jax.data.sources.problems import SourceError
from yolox_jax.errors import UserError
from yolox_jax.types import Example, Problem

_ANNOTATION = np.dtype(
    [("image", np.int64), ("label", np.int32), ("xywh", np.float64, 4), ("area", np.float64), ("iscrowd", np.bool_)]
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Image:
    id: int | str
    path: str
    width: int
    height: int


class CocoSource:
    """The images of a COCO json that are on disk, in the file's order, including those without boxes.

    Label k is the k-th category by id; `merge_same_names` makes one of those with the same name. The boxes to learn are
    the reference's: those with area > 0 that are not crowds, clipped to the image; `crowd_as_object` makes an object of
    each crowd. An annotation without a bbox, or with an empty one, has the box of its segmentation. Faults in the json
    are logged and listed in `problems`.

    Raises:
      UserError: the file is not a COCO data set, none of its images is on disk, or all annotations are faulty.
    """

    def __init__(
        self,
        annotations: str | Path,
        images: str | Path,
        split: str = "train",
        *,
        crowd_as_object: bool = False,
        merge_same_names: bool = False,
        image_config: ImageConfig = ImageConfig(),
        may_be_unusable: bool = False,  # for the doctor, which reports why
    ):
        self.problems: list[Problem] = []
        self._file = str(annotations)
        self._crowd_as_object = crowd_as_object
        self._image_config = image_config

        content = _read_json(self._file, image_config.max_file_mb)
        categories = _by_id(content["categories"], "category", self._file)
        names = [str(categories[id]["name"]) for id in sorted(categories)]
        if not merge_same_names:
            ids = sorted(categories)
            self.problems += class_names.check_different(names, ids, self._file, may_be_alike=may_be_unusable)
        self.class_names, labels = class_names.merge(names)
        self._label_of = dict(zip(sorted(categories), labels, strict=True))
        id_of = {label: id for id, label in reversed(self._label_of.items())}  # the lowest one of merged categories
        self._category_ids = [id_of[label] for label in range(len(self.class_names))]

        listed = _by_id(content["images"], "image", self._file)
        num_annotations = collections.Counter(id_in(record, "image_id") for record in content["annotations"])
        self._images = self._find_files(listed, str(images), num_annotations)
        if not self._images:
            first = next(problem.found for problem in self.problems if problem.kind == problems.MISSING_FILE)
            raise SourceError(
                f"{self._file} ({split}): none of its {len(listed)} images is in {images}; "
                f"the first one looked for is {first}",
                "check the folder, and that file_name in the json is relative to it",
                self.problems,
            )
        self._annotations = self._read_annotations(content["annotations"], listed)
        # Image i owns the annotations from _starts[i] to _starts[i + 1].
        self._starts = np.searchsorted(self._annotations["image"], np.arange(len(self._images) + 1))
        problems.log_problems(self.problems)
        if not may_be_unusable:
            usable.check_faults(self, split)
            usable.check_pixels(self._annotations["xywh"], self._file)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        image = self._images[index]
        annotations = self._annotations[self._starts[index] : self._starts[index + 1]]
        annotations = annotations[~annotations["iscrowd"]]
        boxes_xyxy = clip_xyxy(xywh_to_xyxy(annotations["xywh"]), (image.height, image.width)).astype(np.float32)
        stated = image.width, image.height, f"image {image.id}", "the json"
        decoded = images.read_annotated(image.path, *stated, self._image_config)
        return Example(decoded.pixels, decoded.boxes(boxes_xyxy), annotations["label"].copy(), image.id)

    def image_id(self, index: int) -> int | str:
        return self._images[index].id

    def num_boxes(self, index: int) -> int:
        return len(self.labels(index))

    def labels(self, index: int) -> np.ndarray:
        annotations = self._annotations[self._starts[index] : self._starts[index + 1]]
        return annotations["label"][~annotations["iscrowd"]]

    def encoded(self, index: int) -> bytes:
        """Returns the bytes of the image file."""
        return images.read_bytes(self._images[index].path, self._image_config)

    def ground_truth(self) -> dict[str, Any]:
        """Returns the usable images and annotations, crowds included, boxes unclipped, with the file's ids.

        Annotations are renumbered from 1, since some files use id 0, which COCO's evaluators take for "not matched".
        """
        columns = (self._annotations[name].tolist() for name in ("image", "label", "xywh", "area", "iscrowd"))
        return {
            "images": [
                {"id": image.id, "file_name": image.path, "width": image.width, "height": image.height}
                for image in self._images
            ],
            "annotations": [
                {
                    "id": number,
                    "image_id": self._images[image].id,
                    "category_id": self._category_ids[label],
                    "bbox": xywh,
                    "area": area,
                    "iscrowd": int(iscrowd),
                }
                for number, (image, label, xywh, area, iscrowd) in enumerate(zip(*columns, strict=True), 1)
            ],
            "categories": [
                {"id": id, "name": name} for id, name in zip(self._category_ids, self.class_names, strict=True)
            ],
        }

    def _find_files(
        self, listed: dict[int | str, dict[str, Any]], folder: str, num_annotations: Mapping[Any, int]
    ) -> list[_Image]:
        """Returns the listed images that exist; a missing file, or one that is listed twice, becomes a problem."""
        paths = find_each(Folders(), folder, [record["file_name"] for record in listed.values()])
        found = []
        id_of: dict[str, int | str] = {}
        for (id, record), file in zip(listed.items(), paths, strict=True):
            if file is not None:
                if id_of.setdefault(file, id) != id:
                    also = f"{file}, as image {id_of[file]}"
                    self._add_problem(problems.REPEATED_IMAGE, f"image {id}", also, "used as often")
                found.append(_Image(id, file, int(record["width"]), int(record["height"])))
            else:
                path = os.path.join(folder, record["file_name"])
                action = "image and its annotations left out"
                self._add_problem(problems.MISSING_FILE, f"image {id}", path, action, num_annotations[id])
        return found

    def _read_annotations(self, records: list[Any], listed: dict[int | str, dict[str, Any]]) -> np.ndarray:
        """Returns the usable annotations as `_ANNOTATION` rows, sorted by image; adds each faulty one to `problems`."""
        index_of = {image.id: index for index, image in enumerate(self._images)}
        rows = []
        first_crowd = None
        for number, record in enumerate(records):
            image_id = id_in(record, "image_id")
            if image_id in listed and image_id not in index_of:
                continue  # its image file is missing, which is listed as a problem already
            image = self._images[index_of[image_id]] if image_id in index_of else None
            name = f"annotation {record['id']}" if "id" in record else f"annotations[{number}]"
            bbox = bbox_of(record)
            fault = _fault(record, bbox, image, self._label_of)
            if fault is not None:
                kind, found = fault
                usable = kind == problems.PARTLY_OUTSIDE
                action = "clipped for training" if usable else "annotation left out"
                self._add_problem(kind, name, found, action, num_left_out=0 if usable else 1)
                if not usable:
                    continue
            if bbox is not record.get("bbox") and record.get("bbox"):
                found = f"bbox {record['bbox']!r}"
                self._add_problem(problems.EMPTY_BBOX, name, found, "the box of its segmentation is used")
            xywh = tuple(bbox)
            area = xywh[2] * xywh[3] if record.get("area") is None else record["area"]
            crowd = record.get("iscrowd") or 0
            if crowd not in (0, 1):
                self._add_problem(problems.NOT_A_FLAG, name, f"iscrowd {shortened(crowd)}", "taken as 0")
            is_crowd = crowd == 1 and not self._crowd_as_object
            first_crowd = first_crowd or (name if is_crowd else None)
            rows.append((index_of[image_id], self._label_of[record["category_id"]], xywh, area, is_crowd))
        used_ids = collections.Counter(id for record in records if type(id := record.get("category_id")) is int)
        self.problems += problems.shifted_ids(used_ids, self._label_of, self._file)
        annotations = np.array(rows, _ANNOTATION)
        num_crowds = int(annotations["iscrowd"].sum())
        if first_crowd is not None and num_crowds > len(rows) / 2:
            found = f"{num_crowds} of {len(rows)}"
            action = "if they are single objects, set --config.data.crowd_as_object=true"
            self._add_problem(problems.MANY_CROWDS, first_crowd, found, action, num_crowds)
        # A stable sort, so that the annotations of an image keep the file's order.
        return annotations[np.argsort(annotations["image"], kind="stable")]

    def _add_problem(self, kind: str, record: str, found: str, action: str, num_left_out: int = 0) -> None:
        self.problems.append(Problem(kind, self._file, record, found, action, num_left_out))


def _fault(record: dict[str, Any], bbox: Any, image: _Image | None, label_of: dict[int, int]) -> tuple[str, str] | None:
    """Returns the kind of an annotation's first fault, and a description of it; None if there is no fault."""
    if image is None:
        return problems.UNKNOWN_IMAGE, f"image_id {shortened(record.get('image_id'))}"
    if id_in(record, "category_id") not in label_of:
        return problems.UNKNOWN_CATEGORY, f"category_id {shortened(record.get('category_id'))}"
    kind = problems.box_fault(bbox, image.width, image.height)
    if kind is not None and kind != problems.PARTLY_OUTSIDE:
        return kind, _found_box(bbox, image)
    area = 1 if record.get("area") is None else record["area"]
    if not problems.is_finite(area) or area <= 0:
        return problems.NO_AREA, f"area {shortened(area)}"
    return None if kind is None else (kind, _found_box(bbox, image))


def id_in(record: dict[str, Any], key: str) -> Any:
    """Returns the id under `key`, 1 for 1.0; None if it is no int or str: a list could not be looked up in a dict."""
    value = record.get(key)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) in (int, str) else None  # true is an int to Python


def bbox_of(record: dict[str, Any]) -> Any:
    """Returns the bbox of an annotation, or the box of its segmentation if it has none or one without any extent.

    Mask tools write [0, 0, 0, 0] for a box that they did not compute. MMDetection leaves such annotations out, and
    pycocotools counts them as objects that nothing can match.
    """
    bbox = record.get("bbox")
    if not bbox:
        return coco_masks.bounding_box(record.get("segmentation"))
    if isinstance(bbox, list) and bbox[2:] == [0, 0]:
        box = coco_masks.bounding_box(record.get("segmentation"))
        return bbox if box is None or 0 in box[2:] else box
    return bbox


def _found_box(bbox: Any, image: _Image) -> str:
    return f"bbox {shortened(bbox)} in image {image.id} of {image.width}x{image.height} pixels"


def _read_json(file: str, max_mb: int) -> dict[str, Any]:
    try:
        content = parse_json(files.read_bytes(file, max_mb))
    except DocumentError as error:
        raise UserError(f"{file} {error}", "check that it was copied completely") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error})", "check the file") from error
    for key in ("images", "annotations", "categories"):
        records = content.get(key) if isinstance(content, dict) else None
        is_right = isinstance(records, list) and all(isinstance(record, dict) for record in records)
        if not is_right:
            raise UserError(
                f"{file} has no list of records {key!r} at its top level",
                "give a COCO detection json (instances_*.json)",
            )
    return content


def _is_whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and value.is_integer())


# The fields that every record must have, and a check of each one's value.
_FIELDS = {
    "category": {
        "id": _is_whole,
        "name": lambda value: isinstance(value, str) and value.strip() != "",
    },
    "image": {
        "id": lambda value: isinstance(value, str) or _is_whole(value),
        "file_name": lambda value: isinstance(value, str) and value != "",
        "width": lambda value: problems.is_finite(value) and value >= 1,
        "height": lambda value: problems.is_finite(value) and value >= 1,
    },
}


def _by_id(records: list[Any], kind: str, file: str) -> dict[Any, dict[str, Any]]:
    """Checks the records of a top-level list, and returns them by id, in the file's order."""
    by_id: dict[Any, dict[str, Any]] = {}
    for number, record in enumerate(records):
        for field, is_right in _FIELDS[kind].items():
            if not is_right(record.get(field)):
                raise UserError(
                    f"{file}: {kind} number {number} has no usable {field!r} ({shortened(record)})",
                    "correct the record",
                )
        id = id_in(record, "id")
        if id in by_id:
            raise UserError(f"{file}: {kind} id {shortened(id)} occurs twice", f"give each {kind} a different id")
        by_id[id] = record
    if not by_id:
        raise UserError(f"{file} lists no {kind}", "give a COCO detection json (instances_*.json)")
    return by_id
