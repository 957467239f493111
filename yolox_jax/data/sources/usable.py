"""Checks that a split has boxes to learn: if all annotations are left out, a run would train on nothing."""

from collections.abc import Iterable, Sequence

import numpy as np

from yolox_jax.data.images import ImageError
from yolox_jax.data.sources import problems
from yolox_jax.errors import UserError
from yolox_jax.types import Problem, Source

_MOST_UNMATCHED = 0.1  # share of the images, as for images that cannot be read: data/views/bad_images.py
_CROWDS = "if they are single objects, set --config.data.crowd_as_object=true"
_CORRECT = "correct them; python -m yolox_jax.tools.doctor lists all of them"


def check_faults(source: Source, split: str) -> None:
    """Checks that the faults of a split's annotations leave some of them.

    Raises:
      UserError: all are left out; counts them by reason and names the first of each.
    """
    num_used, left_out = _count(source)
    if num_used == 0 and any(problem.kind != problems.MANY_CROWDS for problem in left_out):
        raise _none_can_be_used(left_out, split, _CORRECT)


def check_pixels(xywh_N4: np.ndarray, file: str) -> None:
    """Checks that a file's boxes do not all end within the first pixel: then they are fractions of their images."""
    ends_N2 = xywh_N4[:, :2] + xywh_N4[:, 2:]
    if len(xywh_N4) and (ends_N2 < 1 + 1e-3).all() and (xywh_N4 % 1 != 0).any():
        raise UserError(
            f"{file}: all {len(xywh_N4)} boxes lie within the first pixel of their image, so they are fractions of it",
            "write pixels: multiply x and w by the image's width, y and h by its height",
        )


def check(source: Source, split: str) -> None:
    """Checks how many of a split's annotations are used. If it is under half, adds a problem and logs it.

    Raises:
      UserError: none is used, or none is there; a split "val" without any is only warned of, since its AP is undefined.
    """
    check_faults(source, split)
    _check_files(source, split)
    num_used, left_out = _count(source)
    num_left_out = sum(problem.num_left_out for problem in left_out)
    if num_used == 0 and left_out:
        raise _none_can_be_used(left_out, split, _CROWDS)
    if num_used == 0 and any(record["iscrowd"] for record in source.ground_truth()["annotations"]):
        raise UserError(f"{split}: all annotations are crowds, which are not learned", _CROWDS)
    if num_used == 0 and split == "train":
        missing = [problem.found for problem in source.problems if problem.kind == problems.MISSING_ANNOTATIONS]
        raise UserError(
            f"{split}: the {len(source)} images have no annotations ({(missing or [_first_image(source)])[0]})",
            "check that images and annotations belong together",
        )
    if num_used == 0:
        problems.logger.warning("%s: the %d images have no annotations, so AP is undefined", split, len(source))
    elif num_used < num_left_out:
        found = f"{num_used} are used, {num_left_out} are not ({_reasons(left_out)})"
        few = Problem(problems.FEW_USABLE, left_out[0].file, split, found, "training continues with these")
        source.problems.append(few)
        problems.logger.warning("%s", few)


def _check_files(source: Source, split: str) -> None:
    """Checks that most images are there, and that labels without an image do not leave images without labels."""
    missing = [problem for problem in source.problems if problem.kind == problems.MISSING_FILE]
    if len(missing) > len(source):
        raise UserError(
            f"{split}: {len(missing)} of {len(missing) + len(source)} images are missing, the first is "
            f"{missing[0].found} ({missing[0].file}: {missing[0].record})",
            "copy them, or list only those that are there",
        )
    unmatched = [problem for problem in source.problems if problem.kind == problems.UNMATCHED_LABELS]
    if len(unmatched) > _MOST_UNMATCHED * len(source):
        num_empty = sum(source.num_boxes(index) == 0 for index in range(len(source)))
        if num_empty > _MOST_UNMATCHED * len(source):
            raise UserError(
                f"{split}: {len(unmatched)} label files belong to no image, the first is {unmatched[0].file}, and "
                f"{num_empty} of {len(source)} images have no boxes",
                "give label files the names and folders of their images",
            )


def warn_again(source: Source) -> None:
    """Logs the warning of `check` once more, since at the end of a run that of the start has scrolled away."""
    for problem in source.problems:
        if problem.kind == problems.FEW_USABLE:
            problems.logger.warning("%s", problem)


def _first_image(source: Source) -> str:
    return f"the first one is {source.ground_truth()['images'][0]['file_name']}"


def _count(source: Source) -> tuple[int, list[Problem]]:
    """Counts the used annotations, but not all if most are used; returns the problems of the others too.

    A source that reads records when they are needed adds its problems while `num_boxes` reads them.
    """
    num_used, num_left_out = 0, 0
    for index in range(len(source)):
        if num_used > num_left_out:
            num_left_out = sum(problem.num_left_out for problem in source.problems)
            if num_used > num_left_out:
                break
        try:
            num_used += source.num_boxes(index)
        except ImageError:
            continue  # bad_images.py decides about it
    return num_used, [problem for problem in source.problems if problem.num_left_out]


def _none_can_be_used(left_out: Sequence[Problem], split: str, advice: str) -> UserError:
    num_left_out = sum(problem.num_left_out for problem in left_out)
    return UserError(f"{split}: not one of the {num_left_out} annotations can be used ({_reasons(left_out)})", advice)


def _reasons(left_out: Iterable[Problem]) -> str:
    """Counts the annotations by reason, and describes the first of each."""
    first: dict[str, Problem] = {}
    counts: dict[str, int] = {}
    for problem in left_out:
        first.setdefault(problem.kind, problem)
        counts[problem.kind] = counts.get(problem.kind, 0) + problem.num_left_out
    return "; ".join(
        f"{counts[kind]}: {kind}, first {each.file}: {each.record}: {each.found}" for kind, each in first.items()
    )
