"""Writes a data set of drawn photographs' size, so that training reads and decodes JPEG files as it does with COCO."""

import json
from pathlib import Path

import cv2

from yolox_jax.data.sources.shapes import ShapesSource

_NUM_CLASSES = 80  # COCO's: the cost of the last layers and of the loss grows with them
_MAX_SIDE = 640  # pixels, as in COCO
_JPEG_QUALITY = 90


def write(folder: Path, num_images: int) -> None:
    """Writes all.json, in COCO's format, and images/."""
    source = ShapesSource(num_images, seed=0, max_side=_MAX_SIDE)
    (folder / "images").mkdir(parents=True)
    truth = source.ground_truth()
    for index, image in enumerate(truth["images"]):
        image["file_name"] = f"{index}.jpg"
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        cv2.imwrite(str(folder / "images" / image["file_name"]), source[index].image, quality)
    known = truth["categories"]
    truth["categories"] += [{"id": n, "name": f"class {n}"} for n in range(len(known) + 1, _NUM_CLASSES + 1)]
    (folder / "all.json").write_text(json.dumps(truth))
