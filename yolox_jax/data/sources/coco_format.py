"""Builds a dict in COCO's annotation format from images and boxes."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class ListedImage(NamedTuple):
    """One record of `images`."""

    id: int | str
    file_name: str
    width: int
    height: int


class ListedBox(NamedTuple):
    """One record of `annotations`, without its ids."""

    image: int  # index into the images
    label: int
    xywh: Sequence[float]  # pixels, x and y of the top left corner
    iscrowd: bool


def to_dict(class_names: Sequence[str], images: Sequence[ListedImage], boxes: Iterable[ListedBox]) -> dict[str, Any]:
    """Builds the dict. Category id = label + 1, annotations are numbered from 1, areas are the boxes' areas."""
    return {
        "images": [image._asdict() for image in images],
        "annotations": [
            {
                "id": number,
                "image_id": images[box.image].id,
                "category_id": box.label + 1,
                "bbox": list(box.xywh),
                "area": box.xywh[2] * box.xywh[3],
                "iscrowd": int(box.iscrowd),
            }
            for number, box in enumerate(boxes, 1)
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(class_names, 1)],
    }
