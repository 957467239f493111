"""What a user gives as an image -> BGR pixels."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from yolox_jax.data import images


class PilImage(Protocol):
    """A PIL.Image.Image; PIL itself is needed only where one is given."""

    def convert(self, mode: str) -> Any: ...


ImageInput = np.ndarray | PilImage | str | Path


def as_bgr(image: ImageInput) -> np.ndarray:
    """[h, w, 3] uint8 BGR of an RGB array, a PIL image or an image file; a PIL image is what its file would be.

    Raises:
      ImageError: a file that cannot be read.
      ValueError: an array of another shape or type, a PIL image of no known range, or something that is no image.
    """
    if isinstance(image, str | Path):
        return images.read(image)
    if isinstance(image, np.ndarray):
        rgb = image
    elif hasattr(image, "convert"):
        rgb = _from_pil(image)
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


def _from_pil(image: Any) -> np.ndarray:
    """RGB as `images.decode` has it: turned as the EXIF orientation says, 16 bits made eight, transparency dropped."""
    from PIL import ImageOps  # whoever gives one of its images has it

    turned = ImageOps.exif_transpose(image)
    if turned.mode == "F":
        raise ValueError("a PIL image of mode F has no known range: scale it to 0..255 and convert it to mode L")
    if not turned.mode.startswith("I"):
        return np.asarray(turned.convert("RGB"))
    # 16 bits of grey are of mode I;16, I;16B or I, by the kind of the file; convert would make all above 255 white.
    levels = np.asarray(turned) >> 8
    grey = levels.astype(np.uint8)
    if (grey != levels).any():
        raise ValueError(f"a PIL image of mode {turned.mode} has numbers outside 0..65535: scale it to 16 bits of grey")
    return np.stack([grey] * 3, axis=-1)
