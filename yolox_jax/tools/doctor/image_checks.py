"""Checks of images: decodes every one, hears what the decoders write, and compares the pixels."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from yolox_jax.data import image_integrity
from yolox_jax.data.images import ImageError, SizeError
from yolox_jax.tools.doctor import decoder_words
from yolox_jax.tools.doctor.annotations import SplitAnnotations
from yolox_jax.tools.doctor.findings import Finding, Severity
from yolox_jax.types import Source

Fault = ImageError | SizeError
Digests = Sequence[bytes | None]  # of each image's pixels; None if the image cannot be used

_DARK = 32  # of 256 levels
_PER_THREAD = 32  # images between two looks at what the decoders have written
_COPY_AGAIN = "copy it again or take it out of the data set"
_LOOK = "look at the image: if it is damaged, copy it again or take it out of the data set"
_MANY_DARK = 0.5  # share of the images: some may well be dark


@dataclasses.dataclass(frozen=True)
class ReadImage:
    """What decoding one image has shown."""

    digest: bytes | None = None  # of its pixels; None if it cannot be used
    is_dark: bool = False  # only the lowest levels are used
    fault: Fault | None = None
    words: str = ""  # of the decoder


def read_all(source: Source, threads: int, progress: Callable[[int, int], None] | None = None) -> Sequence[ReadImage]:
    """Decodes every image once, and again alone if a decoder wrote something, to know which image it is about."""

    def read(index: int) -> ReadImage:
        try:
            pixels = source[index].image
        except (ImageError, SizeError) as error:
            return ReadImage(fault=error)
        digest = hashlib.blake2b(pixels.tobytes() + bytes(str(pixels.shape), "ascii"), digest_size=16).digest()
        return ReadImage(digest, bool(pixels.max() < _DARK))

    images: list[ReadImage] = []
    at_once = _PER_THREAD * max(threads, 1)
    with ThreadPoolExecutor(max(threads, 1)) as pool, decoder_words.heard() as words:
        for start in range(0, len(source), at_once):
            indices = range(start, min(start + at_once, len(source)))
            part = list(pool.map(read, indices))
            if words():
                part = [dataclasses.replace(read(index), words=words()) for index in indices]
            images += part
            if progress is not None:
                progress(len(images), len(source))
    return images


def unusable_images(split: SplitAnnotations, images: Sequence[ReadImage]) -> Iterator[Finding]:
    """Yields a finding for each image that cannot be read, or whose size is not the one in its annotations."""
    for index, image in enumerate(images):
        if image.fault is not None:
            code = "mis-sized-image" if isinstance(image.fault, SizeError) else "unreadable-image"
            said = f" ({image.words})" if image.words else ""
            what, where = f"{image.fault.what}{said}", _where(split, index)
            yield Finding("error", code, split.split, *where, what, image.fault.advice)


def damaged_images(
    split: SplitAnnotations, source: Source, images: Sequence[ReadImage], strict: bool
) -> Iterator[Finding]:
    """Yields a finding for each readable image of which its decoder complains (an error if `strict`) or a checksum."""
    for index, image in enumerate(images):
        if image.fault is not None:
            continue
        where = _where(split, index)
        if split.files[index].lower().endswith((".tif", ".tiff")):
            damage = image_integrity.damage_in_tiff(source.encoded(index) or b"")
            if damage:
                yield Finding("error", "damaged-image", split.split, *where, damage, _COPY_AGAIN, index)
                continue
        if image.words:
            severity: Severity = "error" if strict else "warning"
            what = f"its decoder warns: {image.words}"
            yield Finding(severity, "decoder-warning", split.split, *where, what, _LOOK, index)


def _where(split: SplitAnnotations, index: int) -> tuple[str, str]:
    return split.files[index], f"image {split.image_ids[index]}"


def dark_images(split: SplitAnnotations, images: Sequence[ReadImage]) -> Iterator[Finding]:
    """Yields a finding if most images use the lowest levels only, as those with 12 bits in files of 16 do."""
    dark = [index for index, image in enumerate(images) if image.is_dark]
    if len(dark) > _MANY_DARK * len(split.files):
        what = f"{len(dark)} of {len(split.files)} images use only the {_DARK} lowest of 256 levels; this is the first"
        advice = "if the files have 16 bits but use fewer, set --config.data.sixteen_bit=range"
        yield Finding("warning", "nearly-black", split.split, *_where(split, dark[0]), what, advice, dark[0])


def repeated_images(split: SplitAnnotations, digests: Digests) -> Iterator[Finding]:
    """Yields a finding for each image whose pixels equal those of an earlier image of the same split."""
    first_with: dict[bytes, int] = {}
    for image, digest in enumerate(digests):
        if digest is None:
            continue
        first = first_with.setdefault(digest, image)
        if first != image:
            what = f"its pixels equal those of image {split.image_ids[first]} ({split.files[first]})"
            where = _where(split, image)
            advice = "keep one of the two, with the boxes of both"
            yield Finding("warning", "duplicate-image", split.split, *where, what, advice, image)


def shared_images(
    train: SplitAnnotations, train_digests: Digests, val: SplitAnnotations, val_digests: Digests
) -> Iterator[Finding]:
    """Yields a finding for each image of val whose pixels equal those of an image of train.

    A picture that was compressed again has other pixels, and is not found.
    """
    in_train: dict[bytes, list[int]] = collections.defaultdict(list)
    for image, digest in enumerate(train_digests):
        if digest is not None:
            in_train[digest].append(image)
    for image, digest in enumerate(val_digests):
        if digest is not None and digest in in_train:
            first = in_train[digest][0]
            what = f"also in train, as image {train.image_ids[first]} ({train.files[first]}): it makes the AP too high"
            where = _where(val, image)
            advice = "remove it from one of the two splits"
            yield Finding("error", "image-in-train-and-val", "val", *where, what, advice, image)
