"""What predict also writes if asked: label files in YOLO's format, and a picture of each object."""

import re
from pathlib import Path

import numpy as np

from yolox_jax import storage
from yolox_jax.inference.detections import ImageDetections
from yolox_jax.visualize import sheets

_NO_FOLDER_NAME = re.compile(r'[<>:"/\\|?*\x00-\x1f]|^\.+$|[ .]+$')  # on any system


class Extras:
    """Writes labels/NAME.txt and crops/CLASS/NAME-NUMBER.jpg into the output folder."""

    def __init__(self, output: Path, labels: bool = False, crops: bool = False):
        self._labels = output / "labels" if labels else None
        self._crops = output / "crops" if crops else None

    def write(self, name: str, image_HW3: np.ndarray, found: ImageDetections) -> None:
        """Writes the files of an image; `name` is that of its annotated copy, which no other input has.

        An image without objects gets an empty label file.

        Raises:
          UserError: a file cannot be written.
        """
        if self._labels is not None:
            text = found.to_yolo_txt(image_HW3.shape[:2], with_scores=True)
            storage.write_bytes(self._labels / f"{name}.txt", text.encode(), sync=False)
        if self._crops is not None:
            for number, (class_name, crop) in enumerate(zip(found.names, found.crops(image_HW3), strict=True)):
                folder = self._crops / (_NO_FOLDER_NAME.sub("_", class_name) or "_")
                sheets.write_picture(folder / f"{name}-{number}.jpg", crop)
