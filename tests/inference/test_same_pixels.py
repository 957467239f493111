"""A file and its PIL image give the same pixels, for every format and mode that Pillow writes, or both are refused."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from yolox_jax.data import images
from yolox_jax.data.images import ImageConfig, ImageError
from yolox_jax.errors import UserError
from yolox_jax.inference import pretrained
from yolox_jax.inference.inputs import as_bgr
from yolox_jax.weights.load import FoundWeights
from yolox_jax.weights.meta import Meta

_BGRA = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (4, 5, 4), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC
)
_RGB, _GRAY, _ALPHA = Image.fromarray(_BGRA[..., :3].copy()), Image.fromarray(_BGRA[..., 0]), _BGRA[..., 3]
_DEEP = _BGRA[..., 0].astype(np.uint16) << 8 | 37
PICTURES = {
    "1": _GRAY.convert("1"),
    "L": _GRAY,
    "LA": Image.merge("LA", [_GRAY, Image.fromarray(_ALPHA)]),
    "P": _RGB.quantize(16),
    "RGB": _RGB,
    "RGBA": Image.fromarray(_BGRA),
    "CMYK": Image.frombytes("CMYK", (64, 48), _BGRA.tobytes()),
    "YCbCr": _RGB.convert("YCbCr"),
    "LAB": Image.frombytes("LAB", (64, 48), _BGRA[..., :3].tobytes()),
    "I;16": Image.fromarray(_DEEP),
    "I": Image.fromarray(_DEEP.astype(np.int32)),
    "F": Image.fromarray(_BGRA[..., 0].astype(np.float32) / 255),
}
FORMATS = {
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "BMP": {},
    "GIF": {},
    "JPEG": {"quality": 95},
    "JPEG2000": {},
    "PNG": {},
    "PPM": {},
    "TIFF": {},
    "WEBP": {"lossless": True, "exact": True},
}
# Both readings of these are refused, or OpenCV's is, with a message.
_REFUSED = {("JPEG2000", "CMYK"), ("PPM", "F"), ("TIFF", "F"), ("TIFF", "LAB")}
# OpenCV's conversion of this is another one: up to 32 levels differ.
_OTHER_COLORS = {("JPEG2000", "YCbCr")}


def written(format, mode, orientation=1):
    """The file of a picture, or None if Pillow does not write the mode."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    try:
        PICTURES[mode].save(stream, format, **FORMATS[format], **({"exif": exif} if orientation > 1 else {}))
    except (OSError, ValueError):
        return None
    return stream.getvalue()


CASES = [(f, m) for f in FORMATS for m in PICTURES if (f, m) not in _OTHER_COLORS and written(f, m) is not None]


def test_the_table_has_the_modes_of_all_formats():
    assert len(CASES) > 50
    assert {mode for _, mode in CASES} == set(PICTURES)


@pytest.mark.parametrize(("format", "mode"), CASES)
def test_a_file_and_its_pil_image_give_the_same_pixels(format, mode):
    for orientation in (1, 2, 5, 6):
        data = written(format, mode, orientation)
        if (format, mode) in _REFUSED:
            with pytest.raises(ImageError, match=r"a has|a cannot be decoded"):
                images.decode(data, "a")
            continue
        pixels, of_pil = images.decode(data, "a"), as_bgr(Image.open(io.BytesIO(data)))
        assert pixels.shape == of_pil.shape
        assert np.abs(pixels.astype(int) - of_pil).max() <= (2 if mode == "CMYK" else 1)


@pytest.mark.parametrize("mode", ["F", "LAB"])
def test_a_pil_image_of_unknown_range_is_refused_as_its_file_is(mode):
    with pytest.raises(UserError, match=f"mode {mode}, whose range is unknown"):
        as_bgr(PICTURES[mode])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_upright_and_read_as_stored_if_asked(orientation):
    data, upright = written("AVIF", "RGB", orientation), written("PNG", "RGB", orientation)
    assert np.abs(images.decode(data, "a").astype(int) - images.decode(upright, "b")).max() <= 4  # AVIF loses some
    stored = images.decode(data, "a", ignore_orientation=True)
    np.testing.assert_array_equal(stored, images.decode(written("AVIF", "RGB"), "b"))


def deep(levels, format):
    return cv2.imencode(f".{format}", levels)[1].tobytes()


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
def test_twelve_bits_in_sixteen_keep_their_levels_by_range_and_are_warned_of_otherwise(format, shape, caplog):
    levels = np.random.default_rng(0).integers(0, 4096, shape, np.uint16)
    data = deep(levels, format)
    images._warned_of_dark_levels.clear()
    for _ in range(2):
        assert images.decode(data, "dark.file").max() in (15, 16)  # OpenCV rounds colors in TIFF
    (record,) = caplog.records
    assert "dark.file has 16 bits" in record.getMessage() and "config.data.sixteen_bit=range" in record.getMessage()

    stretched = images.decode(data, "a", ImageConfig(sixteen_bit="range"))
    low, high = int(levels.min()), int(levels.max())
    expected = np.round((levels.astype(np.float64) - low) * 255 / (high - low)).reshape(48, 64, -1)
    assert np.abs(stretched - np.broadcast_to(expected, stretched.shape)).max() <= 1
    if len(shape) == 2:
        np.testing.assert_array_equal(as_bgr(Image.open(io.BytesIO(data)), ImageConfig(sixteen_bit="range")), stretched)


def test_eight_bits_are_the_same_by_range():
    for format in FORMATS:
        data = written(format, "RGB", 6)
        by_range = images.decode(data, "a", ImageConfig(sixteen_bit="range"))
        np.testing.assert_array_equal(by_range, images.decode(data, "a"))


def test_levels_beyond_sixteen_bits_are_refused():
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), 100_000, np.int32)).save(stream, "TIFF")
    with pytest.raises(ImageError, match=r"a has values outside 0\.\.65535: 100000 to 100000: convert it"):
        images.decode(stream.getvalue(), "a")
    with pytest.raises(UserError, match="mode I has values outside"):
        as_bgr(Image.open(stream))


@pytest.mark.parametrize("config", [{}, {"data": {"sixteen_bit": "range"}}])
def test_a_detector_of_a_run_reads_deep_images_as_its_training_did(tmp_path, monkeypatch, config):
    meta = Meta("nano", ("a",), 1, {"input_size": [64, 64], "optimizer": "sgd", **config}, {"next_step": 1})
    monkeypatch.setattr(pretrained, "find_weights", lambda spec: FoundWeights(spec, tmp_path, meta))
    monkeypatch.setattr(pretrained, "load_weights", lambda *args: {})
    loaded = pretrained.load(str(tmp_path))
    assert loaded.image_config == ImageConfig(sixteen_bit="range" if config else "full")
