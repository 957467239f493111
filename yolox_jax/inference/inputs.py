"""Converts any kind of image that a user may give (array, PIL image, path) to BGR pixels."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from yolox_jax import storage
from yolox_jax.data import image_pixels, images
from yolox_jax.data.image_pixels import UnknownRangeError
from yolox_jax.data.images import ImageConfig
from yolox_jax.errors import UserError


@runtime_checkable
class PilImage(Protocol):
    """A PIL.Image.Image, recognized by its method `convert`, so that PIL is not needed for other images."""

    def convert(self, mode: str) -> Any: ...


ImageInput = np.ndarray | PilImage | str | Path


def as_bgr(image: ImageInput, config: ImageConfig = ImageConfig()) -> np.ndarray:
    """Converts an RGB array, a PIL image or an image file to [h, w, 3] uint8 BGR.

    A PIL image gives the same pixels as the file it was opened from.

    Raises:
      ImageError: the file cannot be read.
      UserError: an array of the wrong shape or dtype, a PIL image of unknown range, an address in a bucket, or not an
        image at all.
    """
    if isinstance(image, str | Path):
        return images.read(storage.local_path(image) if isinstance(image, str) else image, config)
    if isinstance(image, np.ndarray):
        rgb = image
    elif isinstance(image, PilImage):
        rgb = _from_pil(image, config)
    else:
        raise UserError(
            f"an object of type {type(image).__name__} is not an image",
            "give an RGB array, a PIL image, a path, or a list of them",
        )
    if rgb.ndim == 4:
        raise UserError(f"an image has shape {rgb.shape}", "give several images as a list, not as one array")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise UserError(f"an image has shape {rgb.shape}", "give an RGB array of shape [height, width, 3]")
    if rgb.dtype != np.uint8:
        raise UserError(f"an image has dtype {rgb.dtype}", "give uint8 values from 0 to 255")
    return np.ascontiguousarray(rgb[..., ::-1])


def _from_pil(image: Any, config: ImageConfig) -> np.ndarray:
    """Returns RGB pixels as `images.decode` does: orientation applied, 16 bits made 8, transparency dropped."""
    from PIL import ImageOps  # PIL is installed, since the caller has a PIL image

    turned = ImageOps.exif_transpose(image)
    if turned.mode in ("F", "LAB"):
        raise UserError(
            f"a PIL image has mode {turned.mode}, whose range is unknown", "scale it to 0..255 and convert it to mode L"
        )
    if not turned.mode.startswith("I"):
        return np.asarray(turned.convert("RGB"))
    # 16-bit gray has mode I;16, I;16B or I, depending on the file format; convert("RGB") would clip it at 255.
    try:
        gray = image_pixels.to_8_bits(np.asarray(turned), config.sixteen_bit)
    except UnknownRangeError as error:
        raise UserError(f"a PIL image of mode {turned.mode} {error}", "scale it to 16-bit gray levels") from error
    return np.stack([gray] * 3, axis=-1)
