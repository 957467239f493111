"""Handles images that cannot be read: replaces them by empty ones, or refuses to start."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from yolox_jax.augment.geometry import PAD_VALUE
from yolox_jax.data.images import ImageError, SizeError
from yolox_jax.data.sources import problems
from yolox_jax.data.views.source_view import SourceView
from yolox_jax.errors import UserError
from yolox_jax.types import Example, Source

logger = logging.getLogger("yolox_jax.data")

_LINES = 20  # listed in a refusal: a folder that was copied badly has thousands of bad images
_MAX_REPLACED = 0.1  # fraction of the data set; if more are bad, the fault is not in a few files
_ALWAYS_REPLACED = 10  # images that are replaced however small the data set is


class TooManyBadImages(UserError):
    """So many images cannot be read that the run would not train on the data set it was given."""


def apply_policy(
    source: Source, policy: str, threads: int, progress: Callable[[int, int], None] | None = None
) -> Source:
    """Applies config.data.bad_images: "replace" wraps the source, "refuse" reads and checks every image once.

    Args:
      source: the files of one split.
      policy: "replace" or "refuse".
      threads: number of threads that check images.
      progress: called with the number of images checked so far and the number of all images.

    Raises:
      ImageError: the policy is "refuse" and images cannot be used; names the first twenty.
      UserError: an unknown policy.
    """
    if policy == "replace":
        return StandInSource(source)
    if policy == "refuse":
        _refuse(source, threads, progress)
        return source
    raise UserError(f"config.data.bad_images is {policy!r}", "choose replace or refuse")


class StandInSource(SourceView):
    """Replaces each unreadable image by a gray one without boxes, and warns about it once.

    Raises TooManyBadImages if more than ten images, and more than a tenth of the data set, are unreadable.
    """

    def __init__(self, source: Source):
        super().__init__(source)
        self._bad: set[int] = set()
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> Example:
        try:
            return super().__getitem__(index)
        except ImageError as error:
            self._note(index, error)
            gray = np.full((32, 32, 3), PAD_VALUE, np.uint8)
            return Example(gray, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), self.image_id(index))

    def num_boxes(self, index: int) -> int:
        try:
            return super().num_boxes(index)
        except ImageError as error:
            self._note(index, error)
            return 0

    def labels(self, index: int) -> np.ndarray:
        try:
            return super().labels(index)
        except ImageError as error:
            self._note(index, error)
            return np.zeros(0, np.int32)

    def _note(self, index: int, error: ImageError) -> None:
        with self._lock:
            if index in self._bad:
                return
            self._bad.add(index)
            num_bad = len(self._bad)
        logger.warning("%s, so an empty image takes its place: %s", error.what, error.advice)
        if num_bad > max(_ALWAYS_REPLACED, _MAX_REPLACED * len(self)):
            raise TooManyBadImages(
                f"{num_bad} of {len(self)} images cannot be read, the last one because {error.what}",
                "repair the data set; --config.data.bad_images=refuse lists every such image",
            ) from error

    def __reduce__(self) -> tuple[type, tuple[Source]]:
        return StandInSource, (self._source,)  # a lock cannot be pickled for a worker process


def _refuse(source: Source, threads: int, progress: Callable[[int, int], None] | None) -> None:
    def fault(index: int) -> str | None:
        try:
            source[index]
        except (ImageError, SizeError) as error:
            return str(error)
        return None

    left_out = (problems.MISSING_FILE, problems.UNKNOWN_FORMAT)
    faults = [str(problem) for problem in source.problems if problem.kind in left_out]
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for num_done, found in enumerate(pool.map(fault, range(len(source))), 1):
            if found is not None:
                faults.append(found)
            if progress is not None:
                progress(num_done, len(source))
    if faults:
        rest = [f"and {len(faults) - _LINES} more"] if len(faults) > _LINES else []
        advice = "repair them or take them out of the data set"
        raise ImageError(f"{len(faults)} images cannot be used", "\n".join([advice, *faults[:_LINES], *rest]))
