"""What a user gives as an image -> BGR pixels."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from yolox_jax.data import images


class PilImage(Protocol):
    """A PIL.Image.Image; PIL itself is not needed here."""

    def convert(self, mode: str) -> Any: ...


ImageInput = np.ndarray | PilImage | str | Path


def as_bgr(image: ImageInput) -> np.ndarray:
    """[h, w, 3] uint8 BGR of an RGB array, a PIL image or an image file.

    Raises:
      ImageError: a file that cannot be read.
      ValueError: an array of another shape or type, or something that is no image.
    """
    if isinstance(image, str | Path):
        return images.read(image)
    if isinstance(image, np.ndarray):
        rgb = image
    elif hasattr(image, "convert"):
        rgb = np.asarray(image.convert("RGB"))
    else:
        raise ValueError(
            f"a {type(image).__name__} is no image: give an RGB array, a PIL image, a path, or a list of them"
        )
    if rgb.ndim == 4:
        raise ValueError(f"one array of shape {rgb.shape} is given for several images: give them as a list")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ValueError(f"an image has shape {rgb.shape}: expected [height, width, 3], RGB")
    if rgb.dtype != np.uint8:
        raise ValueError(f"an image has numbers of type {rgb.dtype}: expected uint8, 0 to 255")
    return np.ascontiguousarray(rgb[..., ::-1])
