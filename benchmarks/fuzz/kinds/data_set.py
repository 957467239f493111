"""What the data set kinds share: the images, reading by the loader's source and by the doctor, and comparing."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from configs import base
from yolox_jax.data.images import ImageError, SizeError
from yolox_jax.data.sources.open import open_split
from yolox_jax.tools.doctor import examination, findings_report
from yolox_jax.types import Problem

WIDTH, HEIGHT, NUM_IMAGES = 64, 48, 4
_TOLERANCE = 1e-3  # pixels: boxes are float32 in an Example

Box = tuple[str, float, float, float, float]  # name of the class, xyxy


@dataclasses.dataclass(frozen=True)
class ReadImage:
    """What a source gives for one image."""

    id: int | str
    boxes: tuple[Box, ...]
    pixels: int | None  # checksum; None if the image was refused with a message


@dataclasses.dataclass(frozen=True)
class ReadSet:
    """What a source gives for a split."""

    class_names: tuple[str, ...]
    images: tuple[ReadImage, ...]
    truth: dict[str, Any]
    problems: tuple[Problem, ...]


def picture(number: int) -> np.ndarray:
    """Returns an image of smooth colors, different for each number."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    waves = [np.sin(rows / (3 + number) + channel) + np.cos(columns / (4 + channel)) for channel in range(3)]
    return np.clip(np.stack(waves, axis=2) * 60 + 128, 0, 255).astype(np.uint8)


def checksum(pixels: np.ndarray) -> int:
    """Returns what `ReadImage.pixels` is for these pixels."""
    return zlib.crc32(pixels.tobytes())


def write_picture(path: Path, number: int) -> None:
    """Writes `picture`, in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture(number)):
        raise OSError(f"{path} cannot be written")


def read(data: Mapping[str, Any]) -> ReadSet:
    """Opens the split "train" as train.py does and reads all of it, then lets the doctor examine both splits."""
    config = base.get_config()
    config.data.update(data)
    source = open_split(config.data, "train")
    images = []
    for index in range(len(source)):
        try:
            example = source[index]
        except (ImageError, SizeError):
            images.append(ReadImage(source.image_id(index), (), None))
            continue
        names = [source.class_names[label] for label in example.labels]
        boxes = [(name, *map(float, box)) for name, box in zip(names, example.boxes_xyxy, strict=True)]
        images.append(ReadImage(example.image_id, tuple(boxes), checksum(example.image)))
    result = ReadSet(source.class_names, tuple(images), source.ground_truth(), tuple(source.problems))
    report = examination.examine(config.data, size_hw=(64, 64), max_boxes=120)
    print(findings_report.text(report))
    return result


def difference(found: Sequence[Box], expected: Sequence[Box]) -> str:
    """Returns how boxes differ from those of an independent reader; empty if they do not. The order counts."""
    if [box[0] for box in found] != [box[0] for box in expected]:
        return f"classes {[box[0] for box in found]}, expected {[box[0] for box in expected]}"
    corners, wanted = (np.array([box[1:] for box in boxes]).reshape(-1, 4) for boxes in (found, expected))
    if not np.allclose(corners, wanted, rtol=1e-5, atol=_TOLERANCE):
        return f"boxes {corners.tolist()}, expected {wanted.tolist()}"
    return ""


def clipped(name: str, x1: float, y1: float, x2: float, y2: float, size: tuple[float, float] = (WIDTH, HEIGHT)) -> Box:
    """Returns a box clipped to its image."""
    left, right = (min(max(x, 0), size[0]) for x in (x1, x2))
    top, bottom = (min(max(y, 0), size[1]) for y in (y1, y2))
    return name, left, top, right, bottom


def wrong_pixels(image: ReadImage, file: Path) -> str:
    """Returns what is wrong with an image's pixels if its file is one of the pictures, unchanged."""
    if not file.is_file() or file.stat().st_size > 1 << 20:
        return ""
    known = {zlib.crc32(cv2.imencode(".png", picture(i))[1].tobytes()): picture(i) for i in range(NUM_IMAGES)}
    written = known.get(zlib.crc32(file.read_bytes()))
    if written is None or image.pixels is None:
        return "" if written is None else f"{file.name} is refused, but was not changed"
    return "" if image.pixels == checksum(written) else f"the pixels of {file.name} are not its own"
