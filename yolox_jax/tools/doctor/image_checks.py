"""What can be wrong with images: found by reading every one of them."""

import collections
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from yolox_jax.data.images import ImageError, SizeError
from yolox_jax.errors import UserError
from yolox_jax.tools.doctor.annotated import Annotated
from yolox_jax.tools.doctor.findings import Finding
from yolox_jax.types import Source

Digests = Sequence[bytes | None]  # of each image's pixels; None of one that cannot be read


def read_all(
    source: Source, threads: int, progress: Callable[[int, int], None] | None = None
) -> tuple[Digests, dict[int, UserError]]:
    """Decodes every image once: what identifies its content, and by index why training could not use an image."""

    def read(index: int) -> bytes | UserError:
        try:
            pixels = source[index].image
        except (ImageError, SizeError) as error:
            return error
        return hashlib.blake2b(pixels.tobytes() + bytes(str(pixels.shape), "ascii"), digest_size=16).digest()

    digests: list[bytes | None] = []
    faults: dict[int, UserError] = {}
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for index, answer in enumerate(pool.map(read, range(len(source)))):
            if isinstance(answer, UserError):
                faults[index] = answer
            digests.append(answer if isinstance(answer, bytes) else None)
            if progress is not None:
                progress(len(digests), len(source))
    return digests, faults


def unusable_images(split: Annotated, faults: Mapping[int, UserError]) -> Iterator[Finding]:
    """A finding for each image that could not be read, or is not of the size its annotations state."""
    for image, error in faults.items():
        code = "mis-sized-image" if isinstance(error, SizeError) else "unreadable-image"
        file = split.files[image]
        what, advice = error.what.removeprefix(file).strip(), error.advice
        yield Finding("error", code, split.split, file, f"image {split.image_ids[image]}", what, advice)


def repeated_images(split: Annotated, digests: Digests) -> Iterator[Finding]:
    """Images of one split that show the same, pixel for pixel."""
    first_with: dict[bytes, int] = {}
    for image, digest in enumerate(digests):
        if digest is None:
            continue
        first = first_with.setdefault(digest, image)
        if first != image:
            what = f"the same picture as image {split.image_ids[first]} ({split.files[first]})"
            where = split.files[image], f"image {split.image_ids[image]}"
            advice = "keep one of the two, with the boxes of both"
            yield Finding("warning", "duplicate-image", split.split, *where, what, advice, image)


def shared_images(train: Annotated, train_digests: Digests, val: Annotated, val_digests: Digests) -> Iterator[Finding]:
    """Images of val that are also in train, pixel for pixel; a picture compressed anew is another."""
    in_train: dict[bytes, list[int]] = collections.defaultdict(list)
    for image, digest in enumerate(train_digests):
        if digest is not None:
            in_train[digest].append(image)
    for image, digest in enumerate(val_digests):
        if digest is not None and digest in in_train:
            first = in_train[digest][0]
            what = f"also in train, as image {train.image_ids[first]} ({train.files[first]}): AP on it proves nothing"
            where = val.files[image], f"image {val.image_ids[image]}"
            yield Finding(
                "error", "image-in-train-and-val", "val", *where, what, "take it out of one of the two", image
            )
