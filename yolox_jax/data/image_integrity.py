"""Finds damage in an image file without decoding it: truncation, and wrong checksums if the format has some.

JPEG, WebP, AVIF, JPEG 2000, BMP and GIF have no checksum: a flipped byte may give other pixels (docs/reliability.md).
"""

import struct
import zlib

from yolox_jax.data import image_header
from yolox_jax.data.image_header import JPEG_MARKER, JPEG_START, PNG_START

_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND"
_PNG_PIXELS = b"IDAT"
_COMPRESSION, _DEFLATE = 259, (8, 32946)  # TIFF's tag, and its two values for zlib's format
_PARTS = ((273, 279), (324, 325))  # TIFF's tags for offsets and lengths, of strips and of tiles
_PIECE = 1 << 20  # bytes, so that a small file cannot fill the memory


def damage(data: bytes) -> str:
    """Returns what is wrong with a JPEG or PNG, as words that follow its name; empty if nothing is.

    Fast enough for every image of a run: the checksums of a PNG's pixels are left to libpng, which refuses wrong ones,
    but ignores a wrong one elsewhere, and with it, for instance, the orientation.
    """
    if data.startswith(JPEG_START):
        is_whole = _reaches_end_of_jpeg(data)
    elif data.startswith(PNG_START):
        is_whole, wrong = _follow_png(data)
        if wrong:
            return f"is damaged: {wrong} has a wrong checksum"
    else:
        is_whole = True
    return "" if is_whole else f"is truncated after {len(data)} bytes"


def damage_in_tiff(data: bytes) -> str:
    """Returns the first strip or tile of a TIFF whose checksum is wrong, as `damage` does.

    Only the compression Deflate has checksums, which libtiff does not always verify. This takes as long as decoding.
    """
    try:
        if not image_header.is_tiff(data) or image_header.tiff_tags(data).get(_COMPRESSION) not in _DEFLATE:
            return ""
        for offsets, lengths in _PARTS:
            parts = zip(image_header.tiff_values(data, offsets), image_header.tiff_values(data, lengths), strict=False)
            for number, (offset, length) in enumerate(parts, 1):
                fault = _zlib_fault(memoryview(data)[offset : offset + length])
                if fault:
                    return f"is damaged: part {number} of its pixels {fault}"
    except (struct.error, LookupError):
        return "is damaged: its directory cannot be read"
    return ""


def _reaches_end_of_jpeg(data: bytes) -> bool:
    """Follows the markers; a search for the end marker's bytes would also find those of a thumbnail."""
    position = len(JPEG_START) - 1
    while (marker := JPEG_MARKER.search(data, position)) is not None:
        if marker[0] == _JPEG_END:
            return True
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")  # of a scan: only its header
        position = marker.end() + length
    return False


def _follow_png(data: bytes) -> tuple[bool, str]:
    """Returns whether the last chunk is there, and the first chunk, besides the pixels, that has a wrong checksum."""
    position = len(PNG_START)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, position = position, position + 12 + length  # length, kind and checksum take four bytes each
        if position > len(data):
            break
        if kind != _PNG_PIXELS:
            content = memoryview(data)[start + 4 : position - 4]
            if zlib.crc32(content) != int.from_bytes(data[position - 4 : position], "big"):
                return False, f"chunk {kind.decode('ascii', 'replace')!r} at byte {start}"
        if kind == _PNG_END:
            return True, ""
    return False, ""


def _zlib_fault(part: memoryview) -> str:
    decompressor = zlib.decompressobj()
    rest: bytes | memoryview = part
    try:
        while rest and not decompressor.eof:
            decompressor.decompress(rest, _PIECE)
            rest = decompressor.unconsumed_tail
    except zlib.error as error:
        return f"cannot be decompressed ({error})"
    return "" if decompressor.eof else "is not complete"
