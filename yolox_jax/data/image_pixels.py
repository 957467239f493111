"""Decodes images by OpenCV, and does what OpenCV leaves out: transparency of TIFF, orientation of AVIF, deep levels."""

import struct

import cv2
import numpy as np

from yolox_jax.data import image_header

_PHOTOMETRIC, _EXTRA_SAMPLES, _SAMPLES, _CIELAB = 262, 338, 277, 8  # TIFF's tags, and the value of one
_ASSOCIATED, _UNASSOCIATED = 1, 2  # alpha that the colors are multiplied by, or not
_BY_DIVISOR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class UnknownRangeError(ValueError):
    """The levels of an image have no known range or colors. The message follows the image's name."""


def to_bgr(data: bytes, sixteen_bit: str, ignore_orientation: bool, divisor: int = 1) -> np.ndarray | None:
    """Decodes to [h, w, 3] uint8 BGR, with the sides divided by 1, 2, 4 or 8; None if OpenCV cannot.

    Raises:
      UnknownRangeError: the levels are floating-point numbers, or beyond 16 bits, or the colors are CIELab.
      cv2.error: the image has more than OpenCV's 2^30 pixels.
    """
    flags = _BY_DIVISOR[divisor] | (cv2.IMREAD_IGNORE_ORIENTATION if ignore_orientation else 0)
    flags |= cv2.IMREAD_ANYDEPTH if sixteen_bit == "range" else 0
    if image_header.is_tiff(data):
        pixels = _tiff(data, flags, sixteen_bit)
    else:
        pixels = _decoded(data, flags)
    if pixels is not None and image_header.is_avif(data) and not ignore_orientation:
        pixels = _turned(pixels, *image_header.avif_orientation(data))
    if pixels is None:
        return None
    if pixels.dtype == np.uint16:
        pixels = to_8_bits(pixels, sixteen_bit)
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise UnknownRangeError("has levels of unknown range, such as floating-point numbers")
    return pixels


def to_8_bits(levels: np.ndarray, sixteen_bit: str) -> np.ndarray:
    """Makes 8-bit levels of 16-bit ones: "full" divides by 256, "range" maps smallest and largest to 0 and 255.

    Raises:
      UnknownRangeError: a level is not in 0..65535.
    """
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > 65535:
        raise UnknownRangeError(f"has values outside 0..65535: {low} to {high}")
    if sixteen_bit == "full":
        return (levels >> 8).astype(np.uint8)
    return ((levels.astype(np.float32) - low) * (255 / max(high - low, 1)) + 0.5).astype(np.uint8)


def _decoded(data: bytes | bytearray, flags: int) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None


def _tiff(data: bytes, flags: int, sixteen_bit: str) -> np.ndarray | None:
    """OpenCV multiplies colors by an alpha channel that is not associated with them, and refuses levels of 32 bits."""
    try:
        tags = image_header.tiff_tags(data)
    except (struct.error, LookupError):
        tags = {}
    if tags.get(_PHOTOMETRIC) == _CIELAB:
        raise UnknownRangeError("has CIELab colors, of which there are several readings")
    if tags.get(_SAMPLES) == 4 and tags.get(_EXTRA_SAMPLES) == _UNASSOCIATED:
        return _decoded(image_header.with_tiff_tag(data, _EXTRA_SAMPLES, _ASSOCIATED), flags)
    pixels = _decoded(data, flags)
    if pixels is None:
        levels = _decoded(data, cv2.IMREAD_UNCHANGED | flags & cv2.IMREAD_IGNORE_ORIENTATION)
        if levels is not None and levels.dtype == np.int32 and levels.ndim == 2:
            return np.repeat(to_8_bits(levels, sixteen_bit)[..., None], 3, axis=2)
        pixels = levels
    return pixels


def _turned(pixels: np.ndarray, quarter_turns: int, mirror: str) -> np.ndarray:
    pixels = np.rot90(pixels, quarter_turns)  # anticlockwise
    if mirror:
        pixels = pixels[::-1] if mirror == "top to bottom" else pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
