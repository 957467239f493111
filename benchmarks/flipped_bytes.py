"""Counts how many flipped bytes in image files are noticed: by training, by the doctor, or by hashes alone.

python -m benchmarks.flipped_bytes [--flips=300] [--image=FILE]

Each flip changes one random byte of a file to another value. "refused": decoding fails. "heard": other pixels, and
the doctor reports a warning of the decoder or a wrong checksum. "silent": other pixels, and nobody notices but
`doctor --check-hashes`. Needs Pillow.
"""

import argparse
import collections
import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks import machine
from yolox_jax.data import image_integrity, images
from yolox_jax.data.images import ImageError
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.tools.doctor import decoder_words

_OUTCOMES = ("refused", "heard", "silent", "same pixels")


def encoded(pixels: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Yields the name of each format and the file of an RGB image in it."""
    image = Image.fromarray(pixels)
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "JPEG": ("JPEG", {"quality": 90}),
        "JPEG, progressive": ("JPEG", {"quality": 90, "progressive": True}),
        "PNG": ("PNG", {}),
        "WebP": ("WEBP", {"quality": 80}),
        "WebP, lossless": ("WEBP", {"lossless": True}),
        "AVIF": ("AVIF", {}),
        "TIFF": ("TIFF", {}),
        "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
        "TIFF, Deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
        "TIFF, JPEG": ("TIFF", {"compression": "jpeg"}),
        "BMP": ("BMP", {}),
        "PPM": ("PPM", {}),
    }
    for name, (format, fields) in options.items():
        stream = io.BytesIO()
        image.save(stream, format, **fields)
        yield name, stream.getvalue()
    yield "JPEG 2000", cv2.imencode(".jp2", pixels[..., ::-1])[1].tobytes()


def outcome(flipped: bytes, pixels: np.ndarray) -> str:
    """Returns what becomes of a file whose pixels were these."""
    with decoder_words.heard() as words:
        try:
            decoded = images.decode(flipped, "image")
        except ImageError:
            return "refused"
        said = words()
    if np.array_equal(decoded, pixels):
        return "same pixels"
    return "heard" if said or image_integrity.damage_in_tiff(flipped) else "silent"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=300, help="flips for each format")
    parser.add_argument("--image", help="the picture; a drawn one if it is not given")
    arguments = parser.parse_args()
    machine.describe()
    bgr = images.read(arguments.image) if arguments.image else ShapesSource(1, 0)[0].image
    print(f"{'% of the flips':<18}" + "".join(f"{name:>12}" for name in _OUTCOMES))
    for name, data in encoded(np.ascontiguousarray(bgr[..., ::-1])):
        pixels, rng, counts = images.decode(data, name), np.random.default_rng(0), collections.Counter[str]()
        for _ in range(arguments.flips):
            flipped = bytearray(data)
            flipped[rng.integers(len(data))] ^= int(rng.integers(1, 256))
            counts[outcome(bytes(flipped), pixels)] += 1
        print(f"{name:<18}" + "".join(f"{100 * counts[each] / arguments.flips:>12.0f}" for each in _OUTCOMES))


if __name__ == "__main__":
    main()
