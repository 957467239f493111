"""Image files -> pixels as a person sees them."""

import os
import re
import struct
from pathlib import Path

import cv2
import numpy as np

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# After 0xff: 0x00 makes it a plain byte of a scan, 0xd0 to 0xd7 are the restarts inside one, a second 0xff is filling.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"


class ImageError(ValueError):
    """An image file is missing, cut off or no image. Names it and says what to do."""


class SizeError(ValueError):
    """An image is not of the size that its annotations state. Names it and says what to do."""


class Folders:
    """Which files exist, by one listing of each folder: 118,000 single questions take minutes on a network."""

    def __init__(self) -> None:
        self._names_in: dict[str, frozenset[str]] = {}

    def have(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names_in:
            self._names_in[folder] = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
        return name in self._names_in[folder]


def read_bytes(path: str | Path) -> bytes:
    """The file as it is. One that is not there, or not a file, or not to be read by us, is an ImageError.

    Any other OSError is the machine's: the disk or the network may have the file in the next moment.
    """
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise ImageError(
            f"{path} cannot be read ({error.strerror}); put it back or take it out of the data set"
        ) from error


def read(path: str | Path, ignore_orientation: bool = False) -> np.ndarray:
    """`decode` of a file. A file that cannot be opened is an ImageError too."""
    return decode(read_bytes(path), str(path), ignore_orientation)


def read_annotated(path: str | Path, width: int, height: int, record: str, stated_in: str) -> np.ndarray:
    """`read` of an image with boxes, of the size stated with them; a SizeError where it is of another one.

    `record` names the image and `stated_in` the annotations, for the error.
    """
    pixels = read(path)
    if pixels.shape[:2] == (width, height) != (height, width):
        # Turned as its EXIF orientation says. The stated size tells that the boxes were drawn before.
        pixels = read(path, ignore_orientation=True)
    if pixels.shape[:2] != (height, width):
        raise SizeError(
            f"{path} ({record}) is {pixels.shape[1]}x{pixels.shape[0]} pixels but {width}x{height} in {stated_in}, "
            "so its boxes cannot be trusted; correct width and height, or put the annotated image back"
        )
    return pixels


def decode(data: bytes, name: str, ignore_orientation: bool = False) -> np.ndarray:
    """[h, w, 3] uint8 BGR of an encoded image of any kind that OpenCV knows; `name` is for the error.

    Grey becomes three channels, CMYK and palettes colours, 16 bits eight; transparency is dropped, and the image is
    turned as its EXIF orientation says. A truncated file is an ImageError: of a JPEG or PNG OpenCV would make up the
    rest, and other kinds it does not decode. Wrong bytes in the middle of a JPEG cannot be told from a picture.
    """
    if _is_truncated(data):
        raise ImageError(f"{name} is truncated after {len(data)} bytes; copy it again or take it out of the data set")
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if ignore_orientation else 0)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:  # more pixels than OpenCV's limit of 2^30
        raise ImageError(f"{name} cannot be decoded ({error.err}); make it smaller") from error
    if pixels is None:
        raise ImageError(f"{name} cannot be decoded; replace the file or take it out of the data set")
    return pixels


def _is_truncated(data: bytes) -> bool:
    if data.startswith(_JPEG_START):
        return not _reaches_end_of_jpeg(data)
    return data.startswith(_PNG_START) and not _reaches_end_of_png(data)


def _reaches_end_of_jpeg(data: bytes) -> bool:
    """Goes from marker to marker, for the bytes of an end also occur in a thumbnail or after the image."""
    position = len(_JPEG_START) - 1
    while (marker := _JPEG_MARKER.search(data, position)) is not None:
        if marker[0] == _JPEG_END:
            return True
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")  # of the header only, for a scan
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
