"""Only regular files of a limited size are read, and images of a limited number of pixels; texts in any encoding."""

import errno
import io
import os
import resource
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from configs import base
from yolox_jax import storage
from yolox_jax.data import files, image_header, images
from yolox_jax.data.images import ImageConfig, ImageError
from yolox_jax.errors import UserError


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    os.chdir(path.parent)  # a socket's path may have only 108 characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


NOT_FILES = {
    "a pipe": a_pipe,
    "a socket": a_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", NOT_FILES)
def test_what_is_not_a_file_is_refused_at_once(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.jpg"
    NOT_FILES[kind](path)
    with pytest.raises(storage.RefusedFileError, match=f"it is {kind}, not a file"):
        files.read_bytes(path)
    with pytest.raises(ImageError, match=rf"a\.jpg cannot be read \(it is {kind}, not a file\): put it back or take"):
        images.read(path)


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    with open(path, "wb") as stream:
        stream.truncate(3 << 30)  # sparse
    with pytest.raises(ImageError, match=r"it has 3072 MiB, config\.data\.max_file_mb is 2048"):
        images.read(path)
    path.write_bytes(bytes(2 << 20))
    assert len(files.read_bytes(path, max_mb=2)) == 2 << 20
    with pytest.raises(storage.RefusedFileError, match="it has 2 MiB, .* is 1"):
        files.read_bytes(path, max_mb=1)


@pytest.mark.parametrize("name", ["\0", "a" * 400, "loop"])
def test_a_path_that_cannot_be_a_file_is_a_bad_image(tmp_path, name):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ImageError, match="cannot be read"):
        images.read(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_is_read_in_its_encoding_whatever_ends_its_lines(tmp_path, encoding, end):
    (tmp_path / "list.txt").write_bytes(f"straße{end}猫{end}".encode(encoding))
    assert files.read_text(tmp_path / "list.txt") == "straße\n猫\n"


def test_a_text_in_the_locales_encoding_is_read_and_one_in_no_encoding_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_bytes("straße".encode("cp1252"))
    with pytest.raises(UnicodeDecodeError):
        files.read_text(tmp_path / "list.txt")
    monkeypatch.setattr(files.locale, "getpreferredencoding", lambda do_setlocale: "cp1252")
    assert files.read_text(tmp_path / "list.txt") == "straße"


OPTIONS = [
    *(("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("GIF", {}), ("PPM", {}), ("AVIF", {})),
    *(("WEBP", {}), ("WEBP", {"lossless": True}), ("JPEG2000", {}), ("JPEG2000", {"no_jp2": True})),
    *(("TIFF", {}), ("TIFF", {"big_tiff": True})),
]


@pytest.mark.parametrize(("format", "options"), OPTIONS)
def test_the_size_of_an_image_is_read_from_its_header_and_limits_it(format, options):
    stream = io.BytesIO()
    Image.new("RGB", (1290, 1010)).save(stream, format, **options)
    data = stream.getvalue()
    assert image_header.size_wh(data) == (1290, 1010)
    assert images.decode(data, "a", ImageConfig(max_megapixels=2)).shape == (1010, 1290, 3)
    with pytest.raises(ImageError, match=r"a has 1290x1010 pixels, .* 1 million that are read: make it smaller"):
        images.decode(data, "a", ImageConfig(max_megapixels=1))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "PPM", "AVIF", "WEBP", "JPEG2000", "TIFF"])
def test_a_damaged_header_has_a_size_or_none(format):
    stream = io.BytesIO()
    Image.new("RGB", (9, 5)).save(stream, format)
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(stream.getvalue()[: rng.integers(2, len(stream.getvalue()) + 1)])
        data[rng.integers(len(data))] = rng.integers(256)
        image_header.size_wh(bytes(data))  # raises nothing


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_small_file_of_a_thousand_million_pixels_takes_no_memory():
    row = bytes(1 + 32_000 // 8)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 32_000, 32_000, 1, 0, 0, 0, 0)), (b"IDAT", zlib.compress(row * 32_000))]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in [*chunks, (b"IEND", b"")])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="32000x32000 pixels"):
        images.decode(data, "bomb.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize(
    "changes", [{"max_file_mb": 0}, {"max_megapixels": -1}, {"max_megapixels": "many"}, {"sixteen_bit": "auto"}]
)
def test_a_limit_out_of_range_is_an_error_that_names_its_field(changes):
    with pytest.raises(UserError, match=rf"config\.data\.{next(iter(changes))} is "):
        ImageConfig(**changes)


def test_the_defaults_are_those_of_the_config():
    data = base.get_config().data
    assert ImageConfig() == ImageConfig(data.max_file_mb, data.max_megapixels, data.sixteen_bit)


def test_too_many_open_files_is_no_fault_of_the_file_that_is_read(tmp_path, monkeypatch):
    """It would have been an unreadable image, in whose place an empty one comes."""

    def refuse(path, flags):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    (tmp_path / "a.png").write_bytes(b"a")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        UserError, match=r"no more files can be opened .*: raise the limit, with ulimit -n 4096"
    ) as raised:
        files.read_bytes(tmp_path / "a.png")
    assert not isinstance(raised.value, OSError)
