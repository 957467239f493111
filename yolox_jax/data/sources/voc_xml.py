"""Parses an annotation file of Pascal VOC, without checking its values."""

import dataclasses
import math
from xml.etree import ElementTree

from yolox_jax.data import files
from yolox_jax.data.sources.documents import DocumentError, parse_xml

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """One annotated object. A value that the file does not have is empty or None."""

    name: str
    corners: tuple[str | None, ...]  # in the order of `CORNERS`; pixels from 1, both corners inside the box
    difficult: str  # "0" if the file does not state it
    repeated: str  # a field that the object has twice, with different values


@dataclasses.dataclass(frozen=True, slots=True)
class Xml:
    """The contents of one file."""

    filename: str
    size: tuple[str | None, str | None]  # width, height
    objects: tuple[Object, ...]


def read(file: str, max_mb: int = files.MAX_MB) -> Xml | None:
    """Parses a file; returns None if it cannot be read or is not xml."""
    try:
        root = parse_xml(files.read_bytes(file, max_mb))
    except (DocumentError, OSError):
        return None
    objects = map(_object, root.iterfind("{*}object"))  # in any namespace, or none
    size = (root.findtext("{*}size/{*}width"), root.findtext("{*}size/{*}height"))
    return Xml((root.findtext("{*}filename") or "").strip(), size, tuple(objects))


def _object(element: ElementTree.Element) -> Object:
    paths = {"name": "{*}name"} | {corner: f"{{*}}bndbox/{{*}}{corner}" for corner in CORNERS}
    found = {field: [each.text or "" for each in element.iterfind(path)] for field, path in paths.items()}
    repeated = next((field for field, texts in found.items() if len(set(texts)) > 1), "")
    name, *corners = (texts[0] if texts else None for texts in found.values())
    return Object((name or "").strip(), tuple(corners), (element.findtext("{*}difficult") or "0").strip(), repeated)


def number(text: str | None) -> float:
    """Converts a text to a number; anything else becomes NaN, which `problems.box_fault` rejects."""
    try:
        value = float(text or "")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
