"""Checks of images: decodes every one, and compares their pixels."""

import collections
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from yolox_jax.data.images import ImageError, SizeError
from yolox_jax.tools.doctor.annotations import SplitAnnotations
from yolox_jax.tools.doctor.findings import Finding
from yolox_jax.types import Source

Fault = ImageError | SizeError
Digests = Sequence[bytes | None]  # of each image's pixels; None if the image cannot be used

_DARK = 32  # of 256 levels
_MANY_DARK = 0.5  # share of the images: some may well be dark


def read_all(
    source: Source, threads: int, progress: Callable[[int, int], None] | None = None
) -> tuple[Digests, dict[int, Fault], list[int]]:
    """Decodes every image once.

    Returns a digest of each image's pixels, the errors by index of the image, and the indices of nearly black images.
    """

    def read(index: int) -> tuple[bytes, bool] | Fault:
        try:
            pixels = source[index].image
        except (ImageError, SizeError) as error:
            return error
        digest = hashlib.blake2b(pixels.tobytes() + bytes(str(pixels.shape), "ascii"), digest_size=16).digest()
        return digest, bool(pixels.max() < _DARK)

    digests: list[bytes | None] = []
    faults: dict[int, Fault] = {}
    dark: list[int] = []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for index, answer in enumerate(pool.map(read, range(len(source)))):
            if isinstance(answer, tuple):
                digests.append(answer[0])
                dark += [index] if answer[1] else []
            else:
                digests.append(None)
                faults[index] = answer
            if progress is not None:
                progress(len(digests), len(source))
    return digests, faults, dark


def dark_images(split: SplitAnnotations, dark: Sequence[int]) -> Iterator[Finding]:
    """Yields a finding if most images use the lowest levels only, as those with 12 bits in files of 16 do."""
    if len(dark) > _MANY_DARK * len(split.files):
        what = f"{len(dark)} of {len(split.files)} images use only the {_DARK} lowest of 256 levels; this is the first"
        advice = "if the files have 16 bits but use fewer, set --config.data.sixteen_bit=range"
        where = split.files[dark[0]], f"image {split.image_ids[dark[0]]}"
        yield Finding("warning", "nearly-black", split.split, *where, what, advice, dark[0])


def unusable_images(split: SplitAnnotations, faults: Mapping[int, Fault]) -> Iterator[Finding]:
    """Yields a finding for each image that cannot be read, or whose size is not the one in its annotations."""
    for image, error in faults.items():
        code = "mis-sized-image" if isinstance(error, SizeError) else "unreadable-image"
        where = split.files[image], f"image {split.image_ids[image]}"
        yield Finding("error", code, split.split, *where, error.what, error.advice)


def repeated_images(split: SplitAnnotations, digests: Digests) -> Iterator[Finding]:
    """Yields a finding for each image whose pixels equal those of an earlier image of the same split."""
    first_with: dict[bytes, int] = {}
    for image, digest in enumerate(digests):
        if digest is None:
            continue
        first = first_with.setdefault(digest, image)
        if first != image:
            what = f"its pixels equal those of image {split.image_ids[first]} ({split.files[first]})"
            where = split.files[image], f"image {split.image_ids[image]}"
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
            where = val.files[image], f"image {val.image_ids[image]}"
            advice = "remove it from one of the two splits"
            yield Finding("error", "image-in-train-and-val", "val", *where, what, advice, image)
