"""Reads image files into pixels, rotated upright as their EXIF orientation says."""

import re
import struct
from pathlib import Path

import cv2
import numpy as np

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
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# No markers: 0xff followed by 0x00 is scan data, by 0xd0 to 0xd7 a restart inside a scan, by 0xff padding.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"


class ImageError(UserError):
    """An image file is missing, truncated or not an image. `what` begins with the file's path."""


class SizeError(UserError):
    """An image's size differs from the one that its annotations state. `what` begins with the file's path."""


def read_bytes(path: str | Path) -> bytes:
    """Returns the bytes of an image file.

    Raises:
      ImageError: there is no such file, or it may not be read.
      UserError: the disk or the network failed. Not an ImageError, which lets an empty image take the place of the
        file: the next try may well succeed.
    """
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise ImageError(
            f"{path} cannot be read ({error.strerror})", "put it back or take it out of the data set"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error})", "check the disk or the network, and start again"
        ) from error


def read(path: str | Path, ignore_orientation: bool = False) -> np.ndarray:
    """Reads and decodes an image file.

    Raises:
      ImageError: the file cannot be read or decoded.
    """
    return decode(read_bytes(path), str(path), ignore_orientation)


def read_annotated(path: str | Path, width: int, height: int, record: str, stated_in: str) -> np.ndarray:
    """Reads an image whose annotations state its size; `record` and `stated_in` name both in the error.

    Raises:
      ImageError: the file cannot be read or decoded.
      SizeError: the image has another size, in either orientation.
    """
    pixels = read(path)
    if pixels.shape[:2] == (width, height) != (height, width):
        # The EXIF orientation swaps the sides, so the boxes were drawn on the image as it is stored.
        pixels = read(path, ignore_orientation=True)
    if pixels.shape[:2] != (height, width):
        raise SizeError(
            f"{path} ({record}) is {pixels.shape[1]}x{pixels.shape[0]} pixels but {width}x{height} in {stated_in}, "
            "so its boxes may be wrong",
            "correct width and height, or put the annotated image back",
        )
    return pixels


def decode(data: bytes, name: str, ignore_orientation: bool = False) -> np.ndarray:
    """Decodes an image of any format that OpenCV knows to [h, w, 3] uint8 BGR; `name` is for the error.

    Gray, CMYK and palette images become BGR, 16 bits become 8, transparency is dropped, and the EXIF orientation is
    applied unless `ignore_orientation` is set.

    Raises:
      ImageError: the data is truncated (OpenCV would fill in the rest of a JPEG or PNG) or cannot be decoded. Wrong
        bytes in the middle of a JPEG are not detected.
    """
    if _is_truncated(data):
        raise ImageError(f"{name} is truncated after {len(data)} bytes", "copy it again or take it out of the data set")
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if ignore_orientation else 0)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:  # above OpenCV's limit of 2^30 pixels
        raise ImageError(f"{name} cannot be decoded ({error.err})", "make it smaller") from error
    if pixels is None:
        raise ImageError(f"{name} cannot be decoded", "replace the file or take it out of the data set")
    return pixels


def _is_truncated(data: bytes) -> bool:
    if data.startswith(_JPEG_START):
        return not _reaches_end_of_jpeg(data)
    return data.startswith(_PNG_START) and not _reaches_end_of_png(data)


def _reaches_end_of_jpeg(data: bytes) -> bool:
    """Follows the markers; a search for the end marker's bytes would also find those of a thumbnail."""
    position = len(_JPEG_START) - 1
    while (marker := _JPEG_MARKER.search(data, position)) is not None:
        if marker[0] == _JPEG_END:
            return True
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")  # of a scan: only its header
        position = marker.end() + length
    return False


def _reaches_end_of_png(data: bytes) -> bool:
    position = len(_PNG_START)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length  # length, kind and checksum take four bytes each
        if kind == _PNG_END:
            return position <= len(data)
    return False
