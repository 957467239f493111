"""What to do with images that cannot be read: empty ones in their place, or a refusal before the start."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from yolox_jax.data.example import Example, Source, SourceView
from yolox_jax.data.geometry import PAD_VALUE
from yolox_jax.data.images import ImageError

logger = logging.getLogger("yolox_jax.data")

_LINES = 20  # of a refusal; a folder that was copied badly has thousands


def apply_policy(
    source: Source, policy: str, threads: int = 2, progress: Callable[[int, int], None] | None = None
) -> Source:
    """The source to read from under config.data.bad_images: "replace", or "refuse", which reads every image once.

    Raises:
      ImageError: the policy is "refuse" and images cannot be read; names the first twenty.
      ValueError: an unknown policy.
    """
    if policy == "replace":
        return StandInSource(source)
    if policy == "refuse":
        _refuse(source, threads, progress)
        return source
    raise ValueError(f"config.data.bad_images is {policy!r}: choose replace or refuse")


class StandInSource(SourceView):
    """A source whose unreadable images are grey and without boxes. Each is warned of once, by path."""

    def __init__(self, source: Source):
        super().__init__(source)
        self._reported: set[int] = set()

    def __getitem__(self, index: int) -> Example:
        try:
            return super().__getitem__(index)
        except ImageError as error:
            if index not in self._reported:
                self._reported.add(index)
                logger.warning("%s. An empty image stands in its place", error)
            grey = np.full((32, 32, 3), PAD_VALUE, np.uint8)
            return Example(grey, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), self.image_id(index))


def _refuse(source: Source, threads: int, progress: Callable[[int, int], None] | None) -> None:
    def fault(index: int) -> str | None:
        try:
            source[index]
        except ImageError as error:
            return str(error)
        return None

    faults = []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for num_done, found in enumerate(pool.map(fault, range(len(source))), 1):
            if found is not None:
                faults.append(found)
            if progress is not None:
                progress(num_done, len(source))
    if faults:
        rest = [f"and {len(faults) - _LINES} more"] if len(faults) > _LINES else []
        raise ImageError("\n".join([f"{len(faults)} images cannot be used:", *faults[:_LINES], *rest]))
