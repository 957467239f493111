"""The labels under review as a COCO dict: each label is known by its place among the annotations of the file."""

import collections
import copy
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from yolox_jax import storage
from yolox_jax.boxes import xyxy_to_xywh
from yolox_jax.data.sources import coco, problems
from yolox_jax.data.sources.documents import parse_json
from yolox_jax.data.sources.open import path_of
from yolox_jax.errors import UserError
from yolox_jax.tools.review.suspicions import Suspicion
from yolox_jax.types import Source

_SAME = 0.5  # pixels: a box that differs by less is the same
_KEYS = ("kind", "image_id", "annotation", "old_bbox", "old_category_id", "new_bbox", "new_category_id")


@dataclasses.dataclass(frozen=True)
class Labels:
    """The boxes of a split, and the COCO content that a correction changes."""

    truth: dict[str, Any]  # of the source: usable labels; category k is label k
    content: dict[str, Any]  # the whole COCO file, with fields of its own; else the same as truth

    @classmethod
    def of(cls, config: ConfigDict, split: str, source: Source) -> "Labels":
        """Reads the labels of a split. Other formats, and a single class, are taken as the COCO file they would be.

        Raises:
          UserError: the split is of several data sets.
        """
        if config.data.also:
            raise UserError("config.data.also names more data sets", "review one data set at a time")
        truth = source.ground_truth()
        if config.data.kind != "coco" or storage.is_remote(str(config.data.root)) or config.data.single_class:
            return cls(truth, copy.deepcopy(truth))
        return cls(truth, parse_json(path_of(config.data, split).read_bytes()))

    def record(self, suspicion: Suspicion) -> dict[str, Any]:
        """Returns a suspicion as it is in review.json, in COCO's terms."""
        old = None if suspicion.gt_index is None else self._usable[suspicion.image_id][suspicion.gt_index]
        place = None if old is None else self._place(old)
        new_label = suspicion.new_label
        categories = self.truth["categories"]
        return {
            "kind": suspicion.kind,
            "doubt": round(suspicion.doubt, 4),
            "image_id": suspicion.image_id,
            "annotation": place,  # its place in the list of the file, from 0
            "annotation_id": None if place is None else self.content["annotations"][place].get("id"),
            "old_bbox": old and old["bbox"],
            "old_category_id": old and old["category_id"],
            "new_bbox": suspicion.new_box and [round(x, 2) for x in xyxy_to_xywh(np.array(suspicion.new_box)).tolist()],
            "new_category_id": None if new_label is None else categories[new_label]["id"],
        }

    def _place(self, old: Mapping[str, Any]) -> int:
        annotations = self.content["annotations"]
        there = self._places[old["image_id"]]
        same = [place for place in there if _is_same(_bbox(annotations[place]), old["bbox"])]
        own = [place for place in same if annotations[place]["category_id"] == old["category_id"]]
        return (own or same)[0]

    @functools.cached_property
    def _usable(self) -> dict[Any, list[dict[str, Any]]]:
        """The labels of the source by image, in the order of ImageBoxes."""
        of_image = collections.defaultdict(list)
        for annotation in self.truth["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        return of_image

    @functools.cached_property
    def _places(self) -> dict[Any, list[int]]:
        """The places of the annotations of the file that have a box, by image."""
        of_image = collections.defaultdict(list)
        for place, annotation in enumerate(self.content["annotations"]):
            if _bbox(annotation):
                of_image[coco.id_in(annotation, "image_id")].append(place)
        return of_image


def corrected(content: Mapping[str, Any], ticked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns a COCO dict with the ticked suspicions put right; everything else stays as it is.

    Raises:
      UserError: a suspicion is of another file: the label that it names is not there.
    """
    annotations: list[dict[str, Any] | None] = [dict(each) for each in content["annotations"]]
    numbers = [each["id"] for each in content["annotations"] if isinstance(each.get("id"), int)]
    next_id = max(numbers, default=0) + 1
    images = {image["id"] for image in content["images"]}
    for suspicion in ticked:
        if suspicion["kind"] == "missing":
            if suspicion["image_id"] not in images:
                raise _other_file(f"there is no image {suspicion['image_id']!r}")
            new = {"id": next_id, "image_id": suspicion["image_id"], "category_id": suspicion["new_category_id"]}
            annotations.append({**new, **_box(suspicion["new_bbox"]), "iscrowd": 0})
            next_id += 1
            continue
        place = suspicion["annotation"]
        old = annotations[place] if 0 <= place < len(content["annotations"]) else None
        is_same = old is not None and coco.id_in(old, "image_id") == suspicion["image_id"]
        if not is_same or not _is_same(_bbox(old), suspicion["old_bbox"]):  # type: ignore[arg-type]
            raise _other_file(f"annotation {place} is not the label of image {suspicion['image_id']!r} that was ticked")
        if suspicion["kind"] == "spurious":
            annotations[place] = None
        elif suspicion["kind"] == "class":
            annotations[place] = {**old, "category_id": suspicion["new_category_id"]}  # type: ignore[dict-item]
        else:
            kept = {key: value for key, value in old.items() if key != "segmentation"}  # type: ignore[union-attr]
            annotations[place] = {**kept, **_box(suspicion["new_bbox"])}
    return {**content, "annotations": [each for each in annotations if each is not None]}


def index_of(source: Source) -> dict[int | str, int]:
    """Returns an index of each image by its id: repeat-factor sampling has some images several times."""
    return {source.image_id(index): index for index in range(len(source))}


def read_ticks(path: str | Path, split: str) -> list[dict[str, Any]]:
    """Reads the file that the sheet of a split exports.

    Raises:
      UserError: it cannot be read, is in a bucket, is another file, or has ticks of another split.
    """
    path = storage.local_path(path)
    try:
        content = json.loads(path.read_bytes())
        ticked, reviewed = content["ticked"], str(content["split"])
        if not all(set(_KEYS) <= set(each) for each in ticked):
            raise KeyError("a field of a suspicion is missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a file of ticks ({error})", "export it from the sheet, by its button"
        ) from error
    if reviewed != split:
        raise UserError(f"{path} has ticks of the split {reviewed}", f"give --split={reviewed}")
    return ticked


def _bbox(annotation: dict[str, Any]) -> Sequence[float] | None:
    """Returns the box that the source takes of an annotation: that of its segmentation if its own is empty."""
    bbox = coco.bbox_of(annotation)
    return bbox if problems.is_four_numbers(bbox) else None


def _is_same(bbox: Sequence[float] | None, other: Sequence[float]) -> bool:
    return bbox is not None and float(np.abs(np.subtract(bbox, other)).max()) < _SAME


def _box(bbox: Sequence[float]) -> dict[str, Any]:
    return {"bbox": list(bbox), "area": bbox[2] * bbox[3]}


def _other_file(what: str) -> UserError:
    return UserError(what, "apply the ticks to the file that was reviewed")
