"""Finds the label files of images in YOLO's format, and the label files that belong to no image."""

import os
from collections.abc import Iterator, Sequence

from yolox_jax.data import files
from yolox_jax.data.folders import Folders, find_each
from yolox_jax.data.sources import problems
from yolox_jax.types import Problem

_IMAGES, _LABELS = (f"{os.sep}{name}{os.sep}" for name in ("images", "labels"))


def label_file(image_file: str) -> str:
    """Returns the path of an image's label file: labels/ replaces the last images/, or else it is beside the image."""
    before, separator, after = os.path.splitext(image_file)[0].rpartition(_IMAGES)
    return f"{before}{_LABELS}{after}.txt" if separator else f"{after}.txt"


def find_label_files(
    folder: str, image_files: Sequence[str], max_mb: int = files.MAX_MB
) -> tuple[list[str | None], list[Problem]]:
    """Finds the label file of each image of a data set in `folder`, None for an image without one.

    Also returns a problem for each file with lines of numbers, in the same folders or below, that belongs to no image.
    """
    folders = Folders()
    found = find_each(folders, folder, list(map(label_file, image_files)))
    image_folder_of = {os.path.dirname(label_file(path)): os.path.dirname(path) for path in image_files}
    used = set(found)
    unmatched = []
    for path, image_folder in _text_files(folders, image_folder_of):
        stem = os.path.splitext(os.path.basename(path))[0]
        if path not in used and not any(_is_other(name) for name in folders.with_stem(image_folder, stem)):
            num_boxes = _num_boxes(path, max_mb)
            if num_boxes:
                found_in_it = f"{num_boxes} boxes"
                unmatched.append(
                    Problem(problems.UNMATCHED_LABELS, path, "file", found_in_it, "left out", num_left_out=num_boxes)
                )
    return found, unmatched


def _is_other(name: str) -> bool:
    return not name.lower().endswith(".txt")


def _text_files(folders: Folders, image_folder_of: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the .txt files in label folders and below them, each with the folder that its image would be in."""
    pending, seen = dict(image_folder_of), set()
    while pending:
        label_folder, image_folder = pending.popitem()
        if label_folder in seen:
            continue
        seen.add(label_folder)
        for name in sorted(folders.names(label_folder)):
            path = os.path.join(label_folder, name)
            if not _is_other(name):
                yield path, image_folder
            elif not os.path.splitext(name)[1] and os.path.isdir(path) and not os.path.islink(path):
                pending.setdefault(path, os.path.join(image_folder, name))


def _num_boxes(path: str, max_mb: int) -> int:
    """Counts the lines of at least five numbers; 0 if another text is in the file, such as the names of classes."""
    try:
        lines = [line.split() for line in files.read_text(path, max_mb).split("\n") if line.strip()]
        numbers = [list(map(float, words)) for words in lines]
    except (OSError, ValueError):
        return 0
    return len(numbers) if all(len(values) >= 5 for values in numbers) else 0
