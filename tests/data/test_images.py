"""Compares decoding with Pillow, which also uses libjpeg and zlib."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from yolox_jax.data import files, images
from yolox_jax.data.images import ImageConfig, ImageError
from yolox_jax.errors import UserError

HEIGHT, WIDTH = 48, 64
ORIENTATION = 0x0112  # EXIF's tag


def smooth(channels=3, seed=0):
    """A picture without sharp edges, on which two JPEG decoders agree."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, channels), np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(picture, format, **options):
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def pillow_bgr(data):
    """Decodes by Pillow, rotated as a person sees the picture."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(picture.convert("RGB"))[..., ::-1]


def assert_close(image, expected, levels):
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= levels


def test_a_gray_jpeg_becomes_three_equal_channels():
    data = encoded(Image.fromarray(smooth()[..., 0]), "JPEG", quality=95)
    assert_close(images.decode(data, "gray"), pillow_bgr(data), levels=1)


def test_a_cmyk_jpeg_gets_the_colors_of_pillow():
    data = encoded(Image.fromarray(smooth(4), "CMYK"), "JPEG", quality=95)
    assert_close(images.decode(data, "cmyk"), pillow_bgr(data), levels=4)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 3)])
def test_a_png_of_16_bits_keeps_the_upper_eight(shape):
    levels = np.random.default_rng(0).integers(0, 2**16, shape, np.uint16)
    image = images.decode(cv2.imencode(".png", levels)[1].tobytes(), "deep")
    upper = (levels >> 8).reshape(HEIGHT, WIDTH, -1)
    np.testing.assert_array_equal(image, np.broadcast_to(upper, (HEIGHT, WIDTH, 3)))


@pytest.mark.parametrize("options", [{}, {"transparency": 3}])
def test_a_palette_png_has_its_colors(options):
    picture = Image.fromarray(smooth()).quantize(16)
    image = images.decode(encoded(picture, "PNG", **options), "palette")
    np.testing.assert_array_equal(image, np.asarray(picture.convert("RGB"))[..., ::-1])


def test_transparency_is_dropped_and_the_colors_below_it_are_kept():
    bgra = smooth(4)
    bgra[:9, :9, 3] = 0
    image = images.decode(cv2.imencode(".png", bgra)[1].tobytes(), "transparent")
    np.testing.assert_array_equal(image, bgra[..., :3])


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_rotated_as_its_exif_orientation_says(orientation, format):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(Image.fromarray(smooth()), format, exif=exif)
    assert_close(images.decode(data, "turned"), pillow_bgr(data), levels=1)
    as_stored = np.asarray(Image.open(io.BytesIO(data)))[..., ::-1]
    assert_close(images.decode(data, "turned", ignore_orientation=True), as_stored, levels=1)


def test_an_image_of_63_million_pixels_is_read():
    data = encoded(Image.new("RGB", (9000, 7000), (1, 2, 3)), "PNG", compress_level=1)
    image = images.decode(data, "large")
    assert image.shape == (7000, 9000, 3)
    assert (image[::999, ::999] == (3, 2, 1)).all()


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_an_image_above_opencvs_limit_is_an_error_that_says_so():
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0")
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    with pytest.raises(ImageError, match=r"huge\.png cannot be decoded .*make it smaller"):
        images.decode(data, "huge.png", ImageConfig(max_megapixels=10_000))


def chunks_of(png):
    """Yields the kind, the start and the end of each chunk."""
    position = 8
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        yield kind, position, position + 12 + length
        position += 12 + length


def test_a_flipped_bit_of_a_png_is_an_error_in_any_chunk():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    information = PngInfo()
    information.add_text("Comment", "about the picture")
    data = encoded(Image.fromarray(smooth()).quantize(16), "PNG", exif=exif.tobytes(), pnginfo=information)
    assert {kind for kind, *_ in chunks_of(data)} == {b"IHDR", b"PLTE", b"tEXt", b"eXIf", b"IDAT", b"IEND"}
    rng = np.random.default_rng(0)
    for _, start, end in chunks_of(data):
        for position in np.unique(np.linspace(start, end - 1, 40, dtype=int)):
            flipped = bytearray(data)
            flipped[position] ^= 1 << int(rng.integers(8))
            with pytest.raises(ImageError, match=r"x\.png (is|cannot|has)"):
                images.decode(bytes(flipped), "x.png")


def test_a_wrong_checksum_names_the_chunk():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encoded(Image.fromarray(smooth()), "PNG", exif=exif.tobytes())
    (start,) = [start for kind, start, _ in chunks_of(data) if kind == b"eXIf"]
    flipped = bytearray(data)
    flipped[start + 9] ^= 1
    with pytest.raises(ImageError, match=rf"x is damaged: chunk 'eXIf' at byte {start} has a wrong checksum: copy it"):
        images.decode(bytes(flipped), "x")


def with_thumbnail(jpeg):
    """Adds a complete second JPEG in an EXIF segment, whose markers are not the image's own."""
    thumbnail = encoded(Image.fromarray(smooth(seed=1)), "JPEG")
    segment = b"Exif\0\0" + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def made_files():
    noise = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    picture = Image.fromarray(noise)  # noise makes long scans with many stuffed 0xff bytes
    jpeg = encoded(picture, "JPEG", quality=90)
    return {
        "jpeg": jpeg,
        "jpeg with a thumbnail": with_thumbnail(jpeg),
        "progressive jpeg": encoded(picture, "JPEG", progressive=True),
        "progressive jpeg with a thumbnail": with_thumbnail(encoded(picture, "JPEG", progressive=True)),
        "jpeg with restarts": encoded(picture, "JPEG", restart_marker_rows=1),
        "png": encoded(picture, "PNG"),
    }


FILES = made_files()


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_an_error_wherever_it_is_cut(name):
    data = FILES[name]
    for length in [*range(10, len(data), 13), *range(len(data) - 20, len(data))]:
        with pytest.raises(ImageError, match=rf"cut\.file is truncated after {length} bytes"):
            images.decode(data[:length], "cut.file")


@pytest.mark.parametrize("name", FILES)
def test_the_second_half_filled_with_zeros_is_truncated(name):
    """As an interrupted download leaves a file whose size was reserved first."""
    data = FILES[name]
    half = len(data) // 2
    with pytest.raises(ImageError):
        images.decode(data[:half] + bytes(len(data) - half), "zeros.file")


# A camera's second image, cut or whole, and bytes that look like the start of a scan.
@pytest.mark.parametrize("trailing", [bytes(200), b"\xff\xda\0\0", FILES["jpeg"], FILES["jpeg"][:900]])
@pytest.mark.parametrize("name", FILES)
def test_bytes_after_the_end_are_ignored(name, trailing):
    image = images.decode(FILES[name], "whole")
    np.testing.assert_array_equal(images.decode(FILES[name] + trailing, "trailing"), image)


def test_a_whole_file_with_a_thumbnail_is_the_image_and_not_the_thumbnail():
    np.testing.assert_array_equal(
        images.decode(FILES["jpeg with a thumbnail"], "with"), images.decode(FILES["jpeg"], "without")
    )


def test_changed_bytes_in_a_png_are_an_error():
    data = bytearray(FILES["png"])
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError, match=r"changed\.png cannot be decoded: replace the file"):
        images.decode(bytes(data), "changed.png")


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_not_an_image_are_an_error_that_names_the_file(data):
    with pytest.raises(ImageError, match=r"some\.file (cannot be decoded|is truncated)"):
        images.decode(data, "some.file")


def test_a_file_that_cannot_be_opened_is_an_error_with_its_path_and_the_cause(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.jpg cannot be read \(No such file"):
        images.read(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=r"cannot be read \(Is a directory\)"):
        images.read_bytes(tmp_path)


def test_a_failing_disk_is_an_error_but_not_a_bad_image(tmp_path, monkeypatch):
    def fail(path, max_mb):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "read_bytes", fail)
    with pytest.raises(UserError, match=r"a\.jpg cannot be read \(Input/output error\): check the disk") as caught:
        images.read(tmp_path / "a.jpg")
    assert not isinstance(caught.value, ImageError)  # no empty image may take its place
