"""config.data.reduced_decoding: large JPEGs are decoded at a reduced scale, and boxes lie where the objects are."""

import io
import itertools
import json
import pickle
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from tests import small
from yolox_jax.augment import geometry
from yolox_jax.cli import from_config
from yolox_jax.data import images, reduced_jpeg
from yolox_jax.data.images import ImageConfig, ImageError
from yolox_jax.data.sources.open import open_split

ORIENTATION = 0x0112  # EXIF's tag
# How each EXIF orientation shows the stored pixels, as the standard says.
UPRIGHT = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def jpeg(pixels, orientation=1, **options):
    exif, stream = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif, **{"quality": 95, **options})
    return stream.getvalue()


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def bounds(image):
    """Where a white rectangle on black begins and ends, to a fraction of a pixel, [1, 4] xyxy."""
    white = image[..., 0] / 255
    middle_y, middle_x = (
        int(np.average(np.arange(n), weights=white.sum(1 - axis))) for axis, n in enumerate(white.shape)
    )
    row, column = white[middle_y], white[:, middle_x]
    near = middle_x - row[:middle_x].sum(), middle_y - column[:middle_y].sum()
    return np.array([[*near, middle_x + row[middle_x:].sum(), middle_y + column[middle_y:].sum()]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_where_the_edges_are_in_any_orientation_and_odd_size(orientation):
    for (height, width), fit in itertools.product([(201, 301), (207, 295), (200, 304)], (60, 50, 24)):
        stored = np.zeros((height, width, 3), np.uint8)
        stored[23 : height - 11, 41 : width - 13] = 255
        box = bounds(UPRIGHT[orientation](stored))
        decoded = images.decode_to_fit(jpeg(stored, orientation), "a", ImageConfig(fit_hw=(fit, fit)))
        assert decoded.whole_hw == UPRIGHT[orientation](stored).shape[:2]
        assert decoded.reduction.divisor == {60: 4, 50: 4, 24: 8}[fit]
        np.testing.assert_allclose(bounds(decoded.pixels), decoded.boxes(box), atol=0.02)
        assert decoded.boxes(box.astype(np.float32)).dtype == np.float32


def test_the_boxes_of_a_source_lie_where_the_edges_of_a_turned_file_are(tmp_path):
    stored = np.zeros((401, 601, 3), np.uint8)
    stored[100:300, 200:500] = 255
    (tmp_path / "a.jpg").write_bytes(jpeg(stored, 6))
    write_coco(tmp_path, [("a.jpg", 401, 601, [101, 200, 200, 300])])
    source = from_config.open_source(config_of(tmp_path, reduced=True), "train", to_train=True)
    example = source[0]
    assert example.image.shape == (301, 201, 3)
    np.testing.assert_allclose(bounds(example.image), example.boxes_xyxy, atol=0.02)


def write_coco(folder, files):
    listed = [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, (name, width, height, _) in enumerate(files)
    ]
    boxes = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": bbox} for number, (*_, bbox) in enumerate(files)
    ]
    content = {"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "all.json").write_text(json.dumps(content))


def config_of(folder, reduced):
    config = small.get_config()
    config.data.update({"kind": "coco", "root": str(folder), "reduced_decoding": reduced})
    config.data.update({f"{split}{part}": name for split in ("train", "val") for part, name in PARTS.items()})
    config.input_size = (160, 160)
    return config


PARTS = {"": "all.json", "_images": "."}


def test_only_a_source_to_train_on_is_reduced_and_only_if_the_config_says_so(tmp_path):
    data = jpeg(noise(401, 601))
    (tmp_path / "a.jpg").write_bytes(data)
    write_coco(tmp_path, [("a.jpg", 601, 401, [40, 30, 80, 120])])
    whole = images.decode(data, "a")
    for config, split, to_train in (
        (config_of(tmp_path, reduced=False), "train", True),
        (config_of(tmp_path, reduced=True), "train", False),
        (config_of(tmp_path, reduced=True), "val", False),
    ):
        example = from_config.open_source(config, split, to_train=to_train)[0]
        np.testing.assert_array_equal(example.image, whole)
        assert example.boxes_xyxy.tolist() == [[40, 30, 120, 150]]
    source = from_config.open_source(config_of(tmp_path, reduced=True), "train", to_train=True)
    for each in (source, pickle.loads(pickle.dumps(source))):  # as a worker process gets it
        assert each[0].image.shape == (201, 301, 3)
        assert each[0].boxes_xyxy.tolist() == [[20, 15, 60, 75]]


def test_one_of_several_data_sets_may_be_reduced(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(noise(400, 600)))
    write_coco(tmp_path, [("a.jpg", 600, 400, [40, 30, 80, 120])])
    data = {"kind": "coco", "root": str(tmp_path), "train": "all.json", "train_images": ".", "reduced_decoding": False}
    source = open_split(data | {"also": ({"reduced_decoding": True},)}, "train", (160, 160))
    assert [example.image.shape[:2] for example in source] == [(400, 600), (200, 300)]


@pytest.mark.parametrize("image_hw", [(160, 160), (319, 240), (300, 319), (31, 319)])
def test_an_image_of_less_than_twice_the_size_is_decoded_whole(image_hw):
    data = jpeg(noise(*image_hw))
    decoded = images.decode_to_fit(data, "a", ImageConfig(fit_hw=(160, 160)))
    assert decoded.reduction is None
    np.testing.assert_array_equal(decoded.pixels, images.decode(data, "a"))


@pytest.mark.parametrize("ending", [".png", ".webp", ".bmp", ".tiff", ".jp2"])
def test_other_formats_are_decoded_whole(ending):
    data = cv2.imencode(ending, noise(200, 300))[1].tobytes()
    decoded = images.decode_to_fit(data, "a", ImageConfig(fit_hw=(32, 32)))
    assert (decoded.reduction, decoded.whole_hw) == (None, (200, 300))
    np.testing.assert_array_equal(decoded.pixels, images.decode(data, "a"))


def header(height, width):
    """The beginning of a JPEG: its start and its frame."""
    return b"\xff\xd8\xff\xc0\0\x11\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes(10)


def test_the_reduced_image_is_never_enlarged_and_a_stronger_reduction_would_be():
    rng, divisors = np.random.default_rng(0), set()
    for height, width, fit_height, fit_width in rng.integers(1, [6000, 6000, 1500, 1500], (500, 4)).tolist():
        fit_hw = fit_height, fit_width
        found = reduced_jpeg.reduction(header(height, width), fit_hw, ignore_orientation=False)
        divisor = found.divisor if found else 1
        divisors.add(divisor)
        if found:
            assert geometry.fit_ratio(found.reduced_hw, fit_hw) <= 1
            fitted = np.array(geometry.scaled_hw((height, width), fit_hw))
            assert (fitted <= found.reduced_hw).all()
        assert divisor == 8 or geometry.fit_ratio((height / divisor / 2, width / divisor / 2), fit_hw) > 1
    assert divisors == {1, 2, 4, 8}


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_truncated_file_is_still_an_error(options):
    data = jpeg(noise(200, 300), **options)
    config = ImageConfig(fit_hw=(32, 32))
    assert images.decode_to_fit(data, "a", config).reduction.divisor == 8
    for length in np.linspace(3, len(data) - 2, 20, dtype=int):
        with pytest.raises(ImageError, match=r"a (is truncated|cannot be decoded)"):
            images.decode_to_fit(data[:length], "a", config)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_cmyk_become_bgr(mode):
    smooth = Image.fromarray(cv2.resize(noise(4, 5), (300, 200), interpolation=cv2.INTER_CUBIC)).convert(mode)
    stream = io.BytesIO()
    smooth.save(stream, "JPEG", quality=95)
    decoded = images.decode_to_fit(stream.getvalue(), "a", ImageConfig(fit_hw=(75, 75)))
    expected = cv2.resize(images.decode(stream.getvalue(), "a"), (75, 50), interpolation=cv2.INTER_AREA)
    assert np.abs(decoded.pixels.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("damage", ["kind", "count", "cut off", "number"])
def test_a_file_whose_orientation_is_not_certain_is_decoded_whole(damage):
    """OpenCV mirrors some of them, which does not show in the sides."""
    data = bytearray(jpeg(noise(201, 301), orientation=2))
    entry = data.index(b"\x12\x01" if b"II*\0" in data else b"\x01\x12")
    order = "<" if b"II*\0" in data else ">"
    tiff = data.index(b"Exif\0\0") + 6
    if damage == "cut off":
        struct.pack_into(order + "I", data, tiff + 4, 1 << 20)
    else:
        at, kind, value = {"kind": (2, "H", 4), "count": (4, "I", 2), "number": (8, "H", 9)}[damage]
        struct.pack_into(order + kind, data, entry + at, value)
    assert images.decode_to_fit(jpeg(noise(201, 301), 2), "a", ImageConfig(fit_hw=(32, 32))).reduction is not None
    decoded = images.decode_to_fit(bytes(data), "a", ImageConfig(fit_hw=(32, 32)))
    assert (decoded.reduction, decoded.whole_hw) == (None, (201, 301))


def test_a_file_whose_orientation_opencv_does_not_apply_is_decoded_whole(monkeypatch):
    monkeypatch.setattr(reduced_jpeg.image_header, "jpeg_orientation", lambda data: 6)
    data = jpeg(noise(200, 300))
    decoded = images.decode_to_fit(data, "a", ImageConfig(fit_hw=(32, 32)))
    assert (decoded.reduction, decoded.whole_hw) == (None, (200, 300))
