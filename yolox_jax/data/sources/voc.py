"""Reads a Pascal VOC data set: lists of image names, and one xml of boxes per image."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolox_jax.boxes import clip_xyxy, voc_xyxy_to_xywh, xywh_to_xyxy
from yolox_jax.data import files, images
from yolox_jax.data.folders import Folders
from yolox_jax.data.images import ImageConfig
from yolox_jax.data.sources import coco_format, problems, usable, voc_files, voc_xml
from yolox_jax.data.sources.documents import shortened
from yolox_jax.data.sources.problems import SourceError
from yolox_jax.data.sources.voc_xml import Xml
from yolox_jax.errors import UserError
from yolox_jax.types import Example, Problem

_BOX = np.dtype([("image", np.int64), ("label", np.int32), ("xywh", np.float64, 4), ("difficult", np.bool_)])


@dataclasses.dataclass(frozen=True, slots=True)
class _Image:
    id: str
    path: str
    width: int
    height: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Listed:
    folder: str
    name: str
    file: str  # the list, and the line in it
    line: int


class VocSource:
    """The images of one or more lists FOLDER/SPLIT under `root`, in the lists' order, including those without boxes.

    The classes are `class_names`, or else the names in all xml files of the folders, sorted (the usual order of VOC's
    twenty). Files that are not listed are read for this too, so that every split of a folder has the same classes.
    An image's id is its name in the list, preceded by its folder if there are several folders. Faults in the files are
    logged and listed in `problems`.

    Raises:
      UserError: the lists cannot be read, none of their images has both an image file and an xml, or all objects are
        faulty.
    """

    def __init__(
        self,
        root: str | Path,
        splits: Sequence[str],  # "VOC2007/trainval"
        class_names: Sequence[str] | None = None,
        split: str = "train",
        *,
        image_config: ImageConfig = ImageConfig(),
        may_be_unusable: bool = False,  # for the doctor, which reports why
    ):
        self.problems: list[Problem] = []
        self._root = str(root)
        self._image_config = image_config
        self._read: dict[str, Xml | None] = {}

        listed = [entry for each in splits for entry in self._read_list(each)]
        folders = sorted({entry.folder for entry in listed})
        self.class_names = tuple(self._find_class_names(folders) if class_names is None else class_names)
        self._images: list[_Image] = []
        self._boxes = self._read_images(listed, is_prefixed=len(folders) > 1)
        self._read.clear()
        problems.log_problems(self.problems)
        if not self._images:
            first = f"; the first one looked for is {self.problems[0].found}" if self.problems else ""
            raise SourceError(
                f"{', '.join(splits)} in {self._root} ({split}): none of the {len(listed)} listed images has both an "
                f"image in JPEGImages and an xml in Annotations{first}",
                "check the folder and the lists in ImageSets/Main",
                self.problems,
            )
        # Image i owns the boxes from _starts[i] to _starts[i + 1].
        self._starts = np.searchsorted(self._boxes["image"], np.arange(len(self._images) + 1))
        if not may_be_unusable:
            usable.check_faults(self, split)
            usable.check_pixels(self._boxes["xywh"], ", ".join(splits))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        image = self._images[index]
        boxes = self._boxes[self._starts[index] : self._starts[index + 1]]
        boxes_xyxy = clip_xyxy(xywh_to_xyxy(boxes["xywh"]), (image.height, image.width)).astype(np.float32)
        stated = image.width, image.height, f"image {image.id}", "its xml"
        decoded = images.read_annotated(image.path, *stated, self._image_config)
        return Example(decoded.pixels, decoded.boxes(boxes_xyxy), boxes["label"].copy(), image.id)

    def image_id(self, index: int) -> str:
        return self._images[index].id

    def num_boxes(self, index: int) -> int:
        return int(self._starts[index + 1] - self._starts[index])

    def labels(self, index: int) -> np.ndarray:
        return self._boxes["label"][self._starts[index] : self._starts[index + 1]].copy()

    def encoded(self, index: int) -> bytes:
        """Returns the bytes of the image file."""
        return images.read_bytes(self._images[index].path, self._image_config)

    def ground_truth(self) -> dict[str, Any]:
        """Returns all usable images and boxes, unclipped; difficult boxes are crowds here.

        In evaluation, VOC ignores a difficult box, detected or not, as COCO ignores a crowd. In training, difficult
        boxes are learned, as in the reference.
        """
        columns = (self._boxes[name].tolist() for name in ("image", "label", "xywh", "difficult"))
        return coco_format.to_dict(
            self.class_names,
            [coco_format.ListedImage(image.id, image.path, image.width, image.height) for image in self._images],
            (coco_format.ListedBox(*row) for row in zip(*columns, strict=True)),
        )

    def _read_list(self, folder_and_split: str) -> Iterator[_Listed]:
        folder, split = folder_and_split.rsplit("/", 1)
        file = os.path.join(self._root, folder, "ImageSets", "Main", f"{split}.txt")
        try:
            lines = files.read_text(file, self._image_config.max_file_mb).split("\n")
        except (OSError, ValueError) as error:  # ValueError: another encoding
            raise UserError(
                f"{file} cannot be read ({error})", "give a text file with one image name per line"
            ) from error
        names = voc_files.listed_names(Folders(), os.path.join(self._root, folder), split, lines)
        for number, name in enumerate(names, 1):
            if name:
                yield _Listed(folder, name, file, number)

    def _find_class_names(self, folders: Sequence[str]) -> Sequence[str]:
        found: set[str] = set()
        for folder in folders:
            directory = os.path.join(self._root, folder, "Annotations")
            for name in sorted(os.listdir(directory)):
                xml = self._xml(os.path.join(directory, name)) if name.endswith(".xml") else None
                found |= {each.name for each in xml.objects} if xml else set()
        found.discard("")
        return sorted(found)

    def _xml(self, file: str) -> Xml | None:
        if file not in self._read:
            self._read[file] = voc_xml.read(file, self._image_config.max_file_mb)
        return self._read[file]

    def _read_images(self, listed: Sequence[_Listed], is_prefixed: bool) -> np.ndarray:
        """Sets `_images` to the usable images; returns their usable boxes as `_BOX` rows in the same order."""
        folders = Folders()
        taken: set[str] = set()  # images that have their boxes
        seen: set[tuple[str, str]] = set()
        rows: list[tuple[Any, ...]] = []
        label_of = {name: label for label, name in enumerate(self.class_names)}
        for entry in listed:
            folder, where = os.path.join(self._root, entry.folder), (entry.file, f"line {entry.line}")
            if (entry.folder, entry.name) in seen:
                self._add_problem(problems.REPEATED_IMAGE, *where, entry.name, "taken once")
                continue
            seen.add((entry.folder, entry.name))

            xml_file = voc_files.find_xml(folders, folder, entry.name)
            if xml_file is None:
                expected = os.path.join(folder, "Annotations", f"{entry.name}.xml")
                self._add_problem(problems.MISSING_ANNOTATIONS, *where, expected, "image left out")
                continue
            xml = self._xml(xml_file)
            if xml is None:
                self._add_problem(problems.UNREADABLE_ANNOTATIONS, xml_file, "file", "no valid xml", "image left out")
                continue

            path = voc_files.find_image(folders, folder, entry.name, xml.filename)
            if path is None or path in taken:
                expected = os.path.join(folder, "JPEGImages", f"{entry.name}.jpg")
                found = expected if xml.filename in ("", f"{entry.name}.jpg") else f"{expected} or {xml.filename}"
                action = "image and its annotations left out"
                self._add_problem(problems.MISSING_FILE, *where, found, action, len(xml.objects))
                continue
            taken.add(path)
            size = self._size(xml, xml_file, path)
            if size is not None:
                id = f"{entry.folder}/{entry.name}" if is_prefixed else entry.name
                image = _Image(id, path, *size)
                rows += [(len(self._images), *box) for box in self._usable_boxes(xml, xml_file, image, label_of)]
                self._images.append(image)
        return np.array(rows, _BOX)

    def _size(self, xml: Xml, xml_file: str, path: str) -> tuple[int, int] | None:
        """Returns width and height from the xml, else from the image itself, else None: the image cannot be read."""
        width, height = map(voc_xml.number, xml.size)
        if width >= 1 and height >= 1:
            return int(width), int(height)
        where = (
            problems.NO_IMAGE_SIZE,
            xml_file,
            "size",
            f"width {shortened(xml.size[0])}, height {shortened(xml.size[1])}",
        )
        try:
            pixels = images.read(path, self._image_config)
        except images.ImageError as error:
            self._add_problem(*where, f"image left out, since {error.what}", len(xml.objects))
            return None
        self._add_problem(*where, "the size of the image itself is used")
        return pixels.shape[1], pixels.shape[0]

    def _usable_boxes(
        self, xml: Xml, file: str, image: _Image, label_of: dict[str, int]
    ) -> Iterator[tuple[int, tuple[float, ...], bool]]:
        """Yields (label, xywh, difficult) of each usable box; adds each fault to `problems`."""
        corners_n4 = np.array([[voc_xml.number(corner) for corner in each.corners] for each in xml.objects])
        boxes_xywh = voc_xyxy_to_xywh(corners_n4.reshape(-1, 4)).tolist()
        for number, (each, xywh) in enumerate(zip(xml.objects, boxes_xywh, strict=True), 1):
            where = (file, f"object {number} ({each.name})")
            if each.repeated:
                self._add_problem(problems.REPEATED_FIELD, *where, each.repeated, "object left out", 1)
                continue
            if each.name not in label_of:
                self._add_problem(
                    problems.UNKNOWN_CATEGORY, *where, f"name {shortened(each.name)}", "object left out", 1
                )
                continue
            fault = problems.box_fault(xywh, image.width, image.height)
            if fault is not None:
                usable = fault == problems.PARTLY_OUTSIDE
                corners = ", ".join(f"{key} {value}" for key, value in zip(voc_xml.CORNERS, each.corners, strict=True))
                found = f"{corners} in {image.width}x{image.height} pixels"
                action = "clipped for training" if usable else "object left out"
                self._add_problem(fault, *where, found, action, num_left_out=0 if usable else 1)
                if not usable:
                    continue
            if each.difficult not in ("0", "1"):
                self._add_problem(problems.NOT_A_FLAG, *where, f"difficult {shortened(each.difficult)}", "taken as 0")
            yield label_of[each.name], tuple(xywh), each.difficult == "1"

    def _add_problem(self, kind: str, file: str, record: str, found: str, action: str, num_left_out: int = 0) -> None:
        self.problems.append(Problem(kind, file, record, found, action, num_left_out))
