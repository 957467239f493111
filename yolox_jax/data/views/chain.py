"""Wraps a source in its views, from first to last:

    open_split       the files of one split, of one or several data sets
    fraction         some of the images (training only)
    bad images       empty images in place of unreadable ones, or a refusal to start
    classes          some of the classes, or all as one
    repeat factor    images of rarer classes several times per epoch (training only)
    --- the run's data set: the schedule and the loader's state depend on its length, order and ids ---
    fitting          images and boxes at the scale of the network's input (training only)
    cache            the most recently used fitted images, for mosaic and mixup partners (training only)
    naming           errors that name the image
    --- the source that a loader reads ---

Bad images are handled before anything asks for boxes, so that no other view meets one; only the fraction comes before
them, since what it leaves out need not be checked. The repeat factor changes the length, so it comes before
everything that depends on the length. Fitting comes before the cache, which therefore holds resized images. Naming
comes last: it reports the index that the loader asked for.
"""

from collections.abc import Callable, Sequence

from yolox_jax.data.views.bad_images import apply_policy
from yolox_jax.data.views.cache import CachedSource, FittedSource
from yolox_jax.data.views.classes import ClassesSource
from yolox_jax.data.views.naming import NamingSource
from yolox_jax.data.views.repeat_factor import RepeatedSource
from yolox_jax.data.views.selected import FractionSource
from yolox_jax.types import Source


def as_configured(
    source: Source,
    *,
    bad_images: str,
    repeat_threshold: float,
    threads: int,
    classes: Sequence[str] = (),
    single_class: bool = False,
    fraction: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Applies what changes the data set itself: some of its images and classes, the policy for bad images, and
    repeat-factor sampling.

    Args:
      source: the files of one split.
      bad_images: "replace" or "refuse".
      repeat_threshold: classes in a smaller share of the images are repeated; 0 turns it off, as it must be for
        evaluation.
      threads: number of threads that check images if the policy is "refuse".
      classes: names of the classes to keep; all if empty.
      single_class: True makes them one class.
      fraction: share of the images to keep; 1, as it must be for evaluation, keeps all.
      progress: called with the number of images checked so far and the number of all images.

    Raises:
      ImageError: the policy is "refuse" and there are bad images.
      UserError: an unknown policy or class, or a threshold or fraction that is not between 0 and 1.
    """
    if fraction != 1:
        source = FractionSource(source, fraction)
    source = apply_policy(source, bad_images, threads, progress)
    if classes or single_class:
        source = ClassesSource(source, classes, single_class)
    return RepeatedSource(source, repeat_threshold) if repeat_threshold else source


def as_read_by_training(source: Source, size_hw: tuple[int, int], cache_bytes: int) -> Source:
    """Fits images to `size_hw`, caches up to `cache_bytes` of them, and names them in errors."""
    return NamingSource(CachedSource(FittedSource(source, size_hw), cache_bytes))


def as_read_by_evaluation(source: Source) -> Source:
    """Names images in errors. Evaluation reads each image once and letterboxes it itself, to know the scale."""
    return NamingSource(source)
