"""Image files -> pixels as a person sees them."""

from pathlib import Path

import cv2
import numpy as np

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"


class ImageError(ValueError):
    """An image cannot be read, or is not the one that was annotated. Names the file and says what to do."""


def read(path: str | Path, ignore_orientation: bool = False) -> np.ndarray:
    """`decode` of a file. A file that cannot be opened is an ImageError too."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read ({error.strerror}); put it back or take it out of the data set"
        ) from error
    return decode(data, str(path), ignore_orientation)


def decode(data: bytes, name: str, ignore_orientation: bool = False) -> np.ndarray:
    """[h, w, 3] uint8 BGR of an encoded image of any kind that OpenCV knows; `name` is for the error.

    Grey becomes three channels, CMYK and palettes colours, 16 bits eight; transparency is dropped, and the image is
    turned as its EXIF orientation says. A truncated file is an ImageError: OpenCV would fill the rest with grey.
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
    """Whether a JPEG or PNG misses its end. No end marker can occur inside a scan, and a thumbnail's comes before it."""
    if data.startswith(_JPEG_START):
        return data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN)
    return data.startswith(_PNG_START) and _PNG_END not in data[-64:]
