"""What one annotation file of Pascal VOC says, unjudged."""

import dataclasses
import math
from xml.etree import ElementTree

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """Empty or None stands for what the file does not have."""

    name: str
    corners: tuple[str | None, ...]  # in the order of `CORNERS`; pixels from 1, both ends inside the box
    difficult: str  # "0" where the file does not say


@dataclasses.dataclass(frozen=True, slots=True)
class Xml:
    filename: str
    size: tuple[str | None, str | None]  # width, height
    objects: tuple[Object, ...]


def read(file: str) -> Xml | None:
    """None where the file is no xml."""
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError):  # the last two: a wrong or unknown encoding
        return None
    objects = (
        Object(
            (each.findtext("name") or "").strip(),
            tuple(each.findtext(f"bndbox/{corner}") for corner in CORNERS),
            (each.findtext("difficult") or "0").strip(),
        )
        for each in root.iterfind("object")
    )
    size = (root.findtext("size/width"), root.findtext("size/height"))
    return Xml((root.findtext("filename") or "").strip(), size, tuple(objects))


def number(text: str | None) -> float:
    """NaN where it is none: no comparison holds for it, and `problems.box_fault` refuses it."""
    try:
        value = float(text or "")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
