"""Which images stand where: the endless shuffled sequence, the partners at a position, and each position's random stream."""

import functools

import numpy as np

_SHUFFLE, _SAMPLE = 0, 1  # the two families of random streams under a seed


def index_at(position: int, num_images: int, seed: int) -> int:
    """The image at a position of the endless shuffled sequence: each epoch is all images in an order of its own."""
    epoch, place = divmod(position, num_images)
    return int(_permutation(seed, epoch, num_images)[place])


def partner_at(position: int, num_images: int, seed: int, window: int, rng: np.random.Generator) -> int:
    """A random image for the sample at a position to be mixed with, possibly its own.

    One of those at the last `window` positions, which are read lately and therefore cheap; of the whole data set, as in
    the reference, where `window` is 0 or not smaller than it.
    """
    if not 0 < window < num_images:
        return int(rng.integers(num_images))
    first = max(0, position - window + 1)  # the first positions share the first window
    return index_at(first + int(rng.integers(window)), num_images, seed)


def sample_rng(position: int, seed: int) -> np.random.Generator:
    """The random stream of the sample at a position, and of nothing else."""
    return _stream(seed, _SAMPLE, position)


# Threads read across one border between epochs at a time, if that. The cache is safe to call from all of them, and a
# permutation dropped too early is only made again.
@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_images: int) -> np.ndarray:
    return _stream(seed, _SHUFFLE, epoch).permutation(num_images)


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
