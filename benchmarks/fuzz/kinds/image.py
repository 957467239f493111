"""Image files of every format, judged by the picture that was written, and by Pillow, another decoder."""

import io
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.fuzz import file_faults
from benchmarks.fuzz.change import Change, Judged, Kind
from benchmarks.fuzz.kinds import data_set
from yolox_jax.inference.inputs import as_bgr

_CLOSE = 2  # levels: decoders round differently
# For the rest, a changed byte is another picture, and nobody can tell.
_WITH_CHECKSUMS = (".png",)


def make(folder: Path) -> None:
    """Writes files in all formats, with their decoded pixels beside them."""
    picture = data_set.picture(1)
    rgb = Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    files = {
        **{f"plain{suffix}": cv2.imencode(suffix, picture)[1].tobytes() for suffix in (".png", ".jpg", ".bmp", ".ppm")},
        **{
            f"plain{suffix}": cv2.imencode(suffix, picture)[1].tobytes()
            for suffix in (".webp", ".tif", ".jp2", ".avif")
        },
        "gray.png": cv2.imencode(".png", picture[..., 0])[1].tobytes(),
        "deep.png": cv2.imencode(".png", picture.astype(np.uint16) << 8)[1].tobytes(),
        "palette.png": _saved(rgb.quantize(16), "PNG"),
        "progressive.jpg": _saved(rgb, "JPEG", progressive=True),
        "turned.jpg": _saved(rgb, "JPEG", exif=exif),
        "cmyk.jpg": _saved(rgb.convert("CMYK"), "JPEG"),
        "lossless.webp": _saved(rgb, "WEBP", lossless=True),
        "deflate.tif": _saved(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "lzw.tif": _saved(rgb, "TIFF", compression="tiff_lzw"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
        np.save(folder / f"{name}.npy", as_bgr(folder / name))


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def change(folder: Path, rng: random.Random) -> Change:
    file = _choose(folder, rng)
    if rng.random() < 0.1:
        return file_faults.replace_file(file, rng)
    return file_faults.change_bytes(file, rng)


def _choose(folder: Path, rng: random.Random) -> Path:
    """Chooses one image, and removes the others."""
    images = sorted(path for path in folder.iterdir() if path.suffix not in (".npy", ".py"))
    chosen = rng.choice(images)
    for path in images:
        if path != chosen:
            path.unlink()
    return chosen


def read(folder: Path) -> dict[str, np.ndarray]:
    """Decodes what is there as the loaders and Detector do: one image, or all of them if none was changed."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix not in (".npy", ".py"))
    return {name: as_bgr(folder / name) for name in names}


def judge(folder: Path, change: Change, result: dict[str, np.ndarray]) -> Judged:
    for name, pixels in result.items():
        written = np.load(folder / f"{name}.npy")
        if pixels.shape == written.shape and np.array_equal(pixels, written):
            continue
        other = _pillow(folder / name)
        if other is not None and other.shape == pixels.shape and np.abs(pixels.astype(int) - other).max() <= _CLOSE:
            if Path(name).suffix not in _WITH_CHECKSUMS:
                return Judged(is_unknowable=True)
        elif ": cut " in change.text:
            return Judged(f"{name} is cut off, and has pixels")
        elif Path(name).suffix not in _WITH_CHECKSUMS:
            return Judged(is_unknowable=True)
        return Judged(f"{name} has other pixels than were written")
    return Judged()


def _pillow(file: Path) -> np.ndarray | None:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))[..., ::-1].astype(int)
    except Exception:  # noqa: BLE001  (Pillow raises errors of many types at damaged files)
        return None


KIND = Kind("image", make, change, read, judge)
