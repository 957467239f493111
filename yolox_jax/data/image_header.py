"""Reads size, depth and orientation of an image from its file, before anything is decoded."""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

# No markers: 0xff followed by 0x00 is scan data, by 0xd0 to 0xd7 a restart inside a scan, by 0xff padding.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_EXIF, _EXIF_START, _ORIENTATION_TAG = 0xE1, b"Exif\0\0", 274
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH_TAG, _HEIGHT_TAG, _BITS_TAG = 256, 257, 258
_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # TIFF's kinds of whole numbers, as struct writes them


def size_wh(data: bytes) -> tuple[int, int] | None:
    """Returns the width and height that a file states, as stored; None if the format or the header is not known."""
    try:
        for starts, read in _FORMATS:
            if data.startswith(starts):
                return read(data)
        if is_avif(data):
            return _of_avif(data)
    except (struct.error, LookupError, ValueError):  # truncated or damaged
        pass
    return None


def _of_png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _of_jpeg(data: bytes) -> tuple[int, int] | None:
    for kind, content in _jpeg_segments(data):
        if kind in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, 1)
            return width, height
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the second byte of the marker of each segment, and the segment's content."""
    position = len(JPEG_START) - 1
    while (marker := JPEG_MARKER.search(data, position)) is not None:
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        yield marker[0][1], data[marker.end() + 2 : position]


def _of_webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _of_bmp(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<ii" if data[14] != 12 else "<HH", data, 18)
    return width, abs(height)


def _of_gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _of_pnm(data: bytes) -> tuple[int, int]:
    words = re.sub(rb"#[^\n]*", b"", data[2:4096]).split(maxsplit=2)
    return int(words[0]), int(words[1])


def _of_tiff(data: bytes) -> tuple[int, int] | None:
    tags = tiff_tags(data)
    return tags[_WIDTH_TAG], tags[_HEIGHT_TAG]


def is_tiff(data: bytes) -> bool:
    """Returns True for a TIFF or BigTIFF."""
    return data.startswith(_TIFF_STARTS)


def is_avif(data: bytes) -> bool:
    """Returns True for an AVIF, or another file of its family."""
    return data[4:8] == b"ftyp"


def bits(data: bytes) -> int:
    """Returns the bits of a level of a PNG or TIFF; 8 for another format, or if the header is damaged."""
    try:
        if data.startswith(PNG_START):
            return data[24]
        return tiff_tags(data)[_BITS_TAG] if is_tiff(data) else 8
    except (struct.error, LookupError):
        return 8


def jpeg_orientation(data: bytes) -> int | None:
    """Returns the EXIF orientation of a JPEG, 1 to 8; 1 if there is none.

    None if it is not written as the standard says: another reader may find another one, or none.
    """
    try:
        for marker, content in _jpeg_segments(data):
            if marker == _JPEG_EXIF and content.startswith(_EXIF_START):
                tiff = content[len(_EXIF_START) :]
                entry = _tiff_entries(tiff).get(_ORIENTATION_TAG)
                if entry is None:
                    return 1
                orientation = struct.unpack_from(_tiff_order(tiff) + entry.format, tiff, entry.position)[0]
                is_standard = entry.format == "H" and entry.num_values == 1 and 1 <= orientation <= 8
                return orientation if is_standard else None
    except (struct.error, LookupError):  # damaged
        return None
    return 1


def avif_orientation(data: bytes) -> tuple[int, str]:
    """Returns the number of quarter turns, anticlockwise, and then the mirroring that shows an AVIF upright."""
    start = data.find(b"meta", 0, 1 << 12)
    if start < 4:
        return 0, ""
    meta = data[start : start - 4 + int.from_bytes(data[start - 4 : start], "big")]
    turn, mirror = meta.find(b"\0\0\0\x09irot"), meta.find(b"\0\0\0\x09imir")
    turns = meta[turn + 8] & 3 if 0 <= turn < len(meta) - 8 else 0
    if not 0 <= mirror < len(meta) - 8:
        return turns, ""
    return turns, "left to right" if meta[mirror + 8] & 1 else "top to bottom"


def with_tiff_tag(data: bytes, tag: int, value: int) -> bytearray:
    """Returns a copy of a TIFF whose first image has another value of a 16-bit tag that it has."""
    changed = bytearray(data)
    struct.pack_into(f"{_tiff_order(data)}H", changed, _tiff_entries(data)[tag].position, value)
    return changed


def tiff_tags(data: bytes) -> dict[int, int]:
    """Returns the first value of the tags of a TIFF's first image that are whole numbers of 16, 32 or 64 bits."""
    order = _tiff_order(data)
    return {
        tag: struct.unpack_from(order + entry.format, data, entry.position)[0]
        for tag, entry in _tiff_entries(data).items()
    }


def tiff_values(data: bytes, tag: int) -> tuple[int, ...]:
    """Returns all values of one such tag; none if the image does not have it."""
    entry = _tiff_entries(data).get(tag)
    if entry is None:
        return ()
    return struct.unpack_from(f"{_tiff_order(data)}{entry.num_values}{entry.format}", data, entry.position)


class _Entry(NamedTuple):
    format: str  # of one value, for struct
    num_values: int
    position: int  # of the first value


def _tiff_order(data: bytes) -> str:
    return "<" if data.startswith(b"II") else ">"


def _tiff_entries(data: bytes) -> dict[int, _Entry]:
    """Returns each such tag."""
    order = _tiff_order(data)
    is_big = data[2:4] in (b"+\0", b"\0+")
    start_format, count_format, entry_size, value_at = ("Q", "Q", 20, 12) if is_big else ("I", "H", 12, 8)
    (start,) = struct.unpack_from(order + start_format, data, 8 if is_big else 4)
    (num_entries,) = struct.unpack_from(order + count_format, data, start)
    first = start + struct.calcsize(count_format)
    entries = {}
    for entry in range(first, first + entry_size * min(num_entries, 1000), entry_size):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        (count,) = struct.unpack_from(order + start_format, data, entry + 4)
        if kind in _NUMBERS:
            is_inside = count * struct.calcsize(_NUMBERS[kind]) <= entry_size - value_at  # else they are at this offset
            at = entry + value_at if is_inside else struct.unpack_from(order + start_format, data, entry + value_at)[0]
            entries[tag] = _Entry(_NUMBERS[kind], count, at)
    return entries


def _of_jp2(data: bytes) -> tuple[int, int]:
    height, width = struct.unpack_from(">II", data, data.index(b"ihdr") + 4)
    return width, height


def _of_jp2_stream(data: bytes) -> tuple[int, int]:
    right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
    return right - left, bottom - top


def _of_avif(data: bytes) -> tuple[int, int]:
    """The largest of the sizes listed: the others are thumbnails and tiles."""
    sizes = []
    position = data.find(b"ispe")
    while position >= 0:
        sizes.append(struct.unpack_from(">II", data, position + 8))
        position = data.find(b"ispe", position + 4, 1 << 16)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return width, height


_FORMATS = (
    (PNG_START, _of_png),
    (JPEG_START, _of_jpeg),
    (b"RIFF", _of_webp),
    (b"BM", _of_bmp),
    (b"GIF8", _of_gif),
    ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), _of_pnm),
    (_TIFF_STARTS, _of_tiff),
    (b"\0\0\0\x0cjP  ", _of_jp2),
    (b"\xff\x4f\xff\x51", _of_jp2_stream),
)
