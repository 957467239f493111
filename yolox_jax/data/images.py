"""Reads image files into pixels, rotated upright as their EXIF orientation says."""

import dataclasses
import errno
import logging
import threading
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from yolox_jax import storage
from yolox_jax.data import files, image_header, image_integrity, image_pixels, reduced_jpeg
from yolox_jax.data.image_pixels import UnknownRangeError
from yolox_jax.errors import UserError

# Endings of image files, in lower case. A .jfif is a JPEG, as some browsers save it.
SUFFIXES = frozenset(
    (
        ".avif",
        ".bmp",
        ".dib",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    )
)
_DARK = 32  # of 256 levels: 13 bits of 16
_logger = logging.getLogger("yolox_jax.data")
_warned_of_dark_levels = threading.Event()


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """What is read of files: the fields of config.data that have these names. A test holds the defaults equal.

    With `fit_hw`, a size that images are fitted to next, `read_annotated` and `decode_to_fit` may reduce large JPEGs.
    """

    max_file_mb: int = files.MAX_MB
    max_megapixels: int = 256
    sixteen_bit: str = "full"
    fit_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for field in ("max_file_mb", "max_megapixels"):
            value = getattr(self, field)
            if not (isinstance(value, int) and value >= 1):
                raise UserError(f"config.data.{field} is {value!r}", "give a whole number of 1 or more")
        if self.sixteen_bit not in ("full", "range"):
            raise UserError(f"config.data.sixteen_bit is {self.sixteen_bit!r}", "choose full or range")


class ImageError(UserError):
    """An image file is missing, truncated or not an image. `what` begins with the file's path."""


class Decoded(NamedTuple):
    """The pixels of an image, whole or at a reduced scale."""

    pixels: np.ndarray  # [h, w, 3] uint8, BGR
    whole_hw: tuple[int, int]  # rows and columns of the whole image
    reduction: reduced_jpeg.Reduction | None = None

    def boxes(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Returns boxes [n, 4] float32 in pixels of the whole image in those of `pixels`."""
        return boxes_xyxy if self.reduction is None else self.reduction.boxes(boxes_xyxy)


class SizeError(UserError):
    """An image's size differs from the one that its annotations state. `what` begins with the file's path."""


def read_bytes(path: str | Path, config: ImageConfig = ImageConfig()) -> bytes:
    """Returns the bytes of an image file.

    Raises:
      ImageError: there is no such file, it may not be read, is too large, or is a pipe or a device.
      UserError: the disk or the network failed. Not an ImageError, which lets an empty image take the place of the
        file: the next try may well succeed.
    """
    try:
        return files.read_bytes(path, config.max_file_mb)
    except _OF_THIS_FILE as error:
        raise ImageError(
            f"{path} cannot be read ({error.strerror})", "put it back or take it out of the data set"
        ) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise ImageError(f"{path} cannot be read ({error.strerror})", "correct the path") from error
        raise UserError(
            f"{path} cannot be read ({error.strerror or error})", "check the disk or the network, and start again"
        ) from error


_OF_THIS_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, storage.RefusedFileError)


def read(path: str | Path, config: ImageConfig = ImageConfig()) -> np.ndarray:
    """Reads and decodes an image file.

    Raises:
      ImageError: the file cannot be read or decoded.
    """
    return decode(read_bytes(path, config), str(path), config)


def read_annotated(
    path: str | Path, width: int, height: int, record: str, stated_in: str, config: ImageConfig = ImageConfig()
) -> Decoded:
    """Reads an image whose annotations state its size, and decodes it as `decode_to_fit` does.

    `record` and `stated_in` name image and annotations in the error.

    Raises:
      ImageError: the file cannot be read or decoded.
      SizeError: the image has another size, in either orientation.
    """
    data = read_bytes(path, config)
    decoded = decode_to_fit(data, str(path), config)
    if decoded.whole_hw == (width, height) != (height, width):
        # The EXIF orientation swaps the sides, so the boxes were drawn on the image as it is stored.
        decoded = decode_to_fit(data, str(path), config, ignore_orientation=True)
    if decoded.whole_hw != (height, width):
        raise SizeError(
            f"{path} ({record}) is {decoded.whole_hw[1]}x{decoded.whole_hw[0]} pixels but {width}x{height} in "
            f"{stated_in}, so its boxes may be wrong",
            "correct width and height, or put the annotated image back",
        )
    return decoded


def decode(
    data: bytes, name: str, config: ImageConfig = ImageConfig(), *, ignore_orientation: bool = False
) -> np.ndarray:
    """Decodes an image of any format that OpenCV knows to [h, w, 3] uint8 BGR; `name` is for the error.

    Gray, CMYK and palette images become BGR, 16 bits become 8 as `config.sixteen_bit` says, transparency is dropped,
    and the orientation is applied unless `ignore_orientation` is set.

    Raises:
      ImageError: the data is truncated (OpenCV would fill in the rest of a JPEG or PNG), has a wrong checksum or cannot
        be decoded, or the image has too many pixels by its header. A JPEG has no checksum.
    """
    return _decode(data, name, config, ignore_orientation, divisor=1)


def decode_to_fit(
    data: bytes, name: str, config: ImageConfig = ImageConfig(), *, ignore_orientation: bool = False
) -> Decoded:
    """Decodes as `decode` does, but a JPEG of at least twice `config.fit_hw`, if that is given, at a reduced scale.

    Of any other format OpenCV would decode the whole first, in the same time.
    """
    reduction = reduced_jpeg.reduction(data, config.fit_hw, ignore_orientation) if config.fit_hw else None
    if reduction is not None:
        pixels = _decode(data, name, config, ignore_orientation, reduction.divisor)
        if pixels.shape[:2] == reduction.reduced_hw:  # else OpenCV reads the orientation otherwise
            return Decoded(pixels, reduction.whole_hw, reduction)
    pixels = decode(data, name, config, ignore_orientation=ignore_orientation)
    return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))


def _decode(data: bytes, name: str, config: ImageConfig, ignore_orientation: bool, divisor: int) -> np.ndarray:
    size_wh = image_header.size_wh(data)
    if size_wh is not None and size_wh[0] * size_wh[1] > config.max_megapixels * 1_000_000:
        raise ImageError(
            f"{name} has {size_wh[0]}x{size_wh[1]} pixels, more than the {config.max_megapixels} million that are read",
            "make it smaller, or raise config.data.max_megapixels",
        )
    damage = image_integrity.damage(data)
    if damage:
        raise ImageError(f"{name} {damage}", "copy it again or take it out of the data set")
    try:
        pixels = image_pixels.to_bgr(data, config.sixteen_bit, ignore_orientation, divisor)
    except UnknownRangeError as error:
        raise ImageError(f"{name} {error}", "convert it to 8 bits") from error
    except cv2.error as error:  # above OpenCV's limit of 2^30 pixels
        raise ImageError(f"{name} cannot be decoded ({error.err})", "make it smaller") from error
    if pixels is None:
        raise ImageError(f"{name} cannot be decoded", "replace the file or take it out of the data set")
    if config.sixteen_bit == "full" and image_header.bits(data) == 16 and pixels.max() < _DARK:
        _warn_of_dark_levels(name, int(pixels.max()) + 1)
    return pixels


def _warn_of_dark_levels(name: str, num_levels: int) -> None:
    """Warns once in a process: most likely all images of the data set are like this one."""
    if not _warned_of_dark_levels.is_set():
        _warned_of_dark_levels.set()
        _logger.warning(
            "%s has 16 bits, but only the lowest levels: %d of 256 are left of them. If all images are like it, set "
            "--config.data.sixteen_bit=range",
            *(name, num_levels),
        )
