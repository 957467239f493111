"""Chooses the order of training images, the partners of each sample, and each sample's random stream."""

import functools

import numpy as np

_SHUFFLE, _SAMPLE = 0, 1  # the two families of random streams under one seed


def index_at(position: int, num_images: int, seed: int) -> int:
    """Returns the image at a position of the endless shuffled sequence. Each epoch has its own permutation."""
    epoch, place = divmod(position, num_images)
    return int(_permutation(seed, epoch, num_images)[place])


def partner_at(position: int, num_images: int, seed: int, window: int, rng: np.random.Generator) -> int:
    """Draws the index of an image to mix with the sample at a position; it can be the sample's own image.

    Draws from the last `window` positions, whose images are probably in the cache. If `window` is 0 or at least
    `num_images`, draws from the whole data set, as the reference does.
    """
    if not 0 < window < num_images:
        return int(rng.integers(num_images))
    first = max(0, position - window + 1)  # the first positions share the first window
    return index_at(first + int(rng.integers(window)), num_images, seed)


def sample_rng(position: int, seed: int) -> np.random.Generator:
    """Returns the random stream of the sample at a position, which no other sample uses."""
    return _stream(seed, _SAMPLE, position)


# The samples in progress are from two epochs at most, unless the data set is tiny. lru_cache is thread-safe, and a
# permutation that is evicted too early is computed again.
@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_images: int) -> np.ndarray:
    return _stream(seed, _SHUFFLE, epoch).permutation(num_images)


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
