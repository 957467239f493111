"""Reads the yaml file of a data set in YOLO's text format: the classes, and the images of each split."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yolox_jax.data import files, images
from yolox_jax.data.folders import Folders
from yolox_jax.data.sources import problems, yolo_layout
from yolox_jax.data.sources.documents import DocumentError, parse_yaml, shortened
from yolox_jax.data.sources.yolo_labels import label_file
from yolox_jax.data.sources.yolo_layout import Layout
from yolox_jax.errors import UserError
from yolox_jax.types import Problem

# Files beside the images, before a folder counts as a wrong one, such as "/": other formats have one for each image.
_MANY_OTHERS, _MOST_OTHERS = 20_000, 10

KEYS = {"train": ("train",), "val": ("val", "valid")}


@dataclasses.dataclass(frozen=True)
class YoloYaml:
    """The contents of the file. Paths are absolute."""

    file: str
    class_names: tuple[str, ...]
    path: str  # the folder that relative paths of the splits start at
    splits: dict[str, tuple[str, ...]]  # by the key in the file: folders of images, or text files that list them
    layout: Layout | None  # of the label lines, if kpt_shape states it


def read(file: str | Path, max_mb: int = files.MAX_MB) -> YoloYaml:
    """Parses the file and checks it.

    Raises:
      UserError: it does not describe a detection data set.
    """
    file = os.path.abspath(file)
    try:
        content = parse_yaml(files.read_bytes(file, max_mb))
    except DocumentError as error:
        raise UserError(f"{file} {error}", "correct it") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error})", "give the yaml of a data set") from error
    is_mapping = isinstance(content, dict)
    if not is_mapping:
        raise UserError(f"{file} has no keys such as train, val and names", "give the yaml of a data set")
    folder = os.path.dirname(file)
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(str(content.get("path") or ""))))
    splits = {}
    for key in (key for keys in KEYS.values() for key in keys if content.get(key)):
        entries = content[key] if isinstance(content[key], list) else [content[key]]
        splits[key] = tuple(_resolve(path, os.path.expanduser(str(entry))) for entry in entries)
    return YoloYaml(file, _class_names(content, file), path, splits, _layout(content, file))


def find_images(content: YoloYaml, split: str, found_problems: list[Problem], max_mb: int = files.MAX_MB) -> list[str]:
    """Returns the paths of the images of "train" or "val", sorted, each once; appends the faults to `found_problems`.

    Raises:
      UserError: the yaml does not have the split, or names a folder or list that does not exist, or a folder of other
        files.
    """
    keys = KEYS[split]
    entries = next((content.splits[key] for key in keys if key in content.splits), None)
    if entries is None:
        raise UserError(f"{content.file} has no {' or '.join(keys)}", "name a folder of images or a list of them there")
    paths: set[str] = set()
    for entry in entries:
        if os.path.isdir(entry):
            paths |= _in_folder(entry, found_problems, content.file)
        elif os.path.isfile(entry):
            paths |= _in_list(entry, content.path, found_problems, max_mb)
        else:
            raise UserError(
                f"{content.file}: {keys[0]}: there is no folder or file {entry}",
                f"correct {keys[0]}, or path, the folder that its relative paths start at",
            )
    return sorted(paths)


def _layout(content: dict[str, Any], file: str) -> Layout | None:
    if "kpt_shape" not in content:
        return None
    shape = content["kpt_shape"]
    texts = [str(each) for each in shape] if isinstance(shape, list) else []
    if texts == ["0", "0"]:
        return yolo_layout.of_keypoints(0, 0)
    if not (len(texts) == 2 and texts[0].isdecimal() and 1 <= int(texts[0]) <= 1000 and texts[1] in ("2", "3")):
        raise UserError(
            f"{file}: kpt_shape is {shortened(shape)}", "give [number of keypoints, 2 or 3], or [0, 0] for polygons"
        )
    return yolo_layout.of_keypoints(int(texts[0]), int(texts[1]))


def _class_names(content: dict[str, Any], file: str) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict):
        ids = [str(number) for number in range(len(names))]
        if set(names) != set(ids):
            raise UserError(
                f"{file}: names has the ids {', '.join(names)[:200]}",
                f"use the ids 0 to {len(names) - 1}",
            )
        names = [names[id] for id in ids]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: names is {shortened(names)}", "give the list of the classes' names")
    if empty := [number for number, name in enumerate(names) if not name.strip()]:
        raise UserError(f"{file}: class {empty[0]} of names has an empty name", "name every class")
    if "nc" in content and content["nc"] != str(len(names)):
        raise UserError(f"{file}: nc is {shortened(content['nc'])}, but names has {len(names)}", "correct one of them")
    return tuple(names)


def _resolve(path: str, entry: str) -> str:
    resolved = os.path.normpath(os.path.join(path, entry))
    # Roboflow's exports write ../train/images for the folder train/images beside the yaml.
    beside = os.path.normpath(os.path.join(path, entry.removeprefix("../")))
    return beside if not os.path.exists(resolved) and os.path.exists(beside) else resolved


def _in_folder(folder: str, found_problems: list[Problem], yaml_file: str) -> set[str]:
    """Returns the images in a folder and its subfolders; reports all other files but labels, and folders named so."""
    paths: set[str] = set()
    others: list[str] = []
    named_so: list[str] = []
    for directory, folders, names in _walk(folder):
        named_so += [os.path.join(directory, name) for name in folders if _has_image_suffix(name)]
        for name in names:
            if _has_image_suffix(name) and not name.startswith("."):
                paths.add(os.path.join(directory, name))
            elif not name.lower().endswith(".txt") and not name.startswith("."):  # labels may lie beside their images
                others.append(os.path.join(directory, name))
        if len(others) > _MANY_OTHERS + _MOST_OTHERS * len(paths):
            raise UserError(
                f"{yaml_file}: {folder} has {len(others)} or more files that are neither images nor labels",
                "correct the path",
            )
    others += [each for each in named_so if not any(path.startswith(f"{each}{os.sep}") for path in paths)]
    paths = _once(paths, found_problems)
    owned_labels = {label_file(path) for path in paths}  # some tools write 1.npy beside 1.jpg
    existing = Folders()
    for path in others:
        labels = label_file(path)
        is_labeled = labels not in owned_labels and existing.have(labels)
        kind = problems.UNKNOWN_FORMAT if is_labeled else problems.NOT_AN_IMAGE
        what = "folder" if os.path.isdir(path) else "file"
        found_problems.append(Problem(kind, os.path.dirname(path), what, os.path.basename(path), "left out"))
    return paths


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in images.SUFFIXES


def _walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields a folder and all below it, each once, with its folders and files. A link may lead to a folder above it."""
    seen = set()
    for directory, folders, names in os.walk(folder, followlinks=True):
        state = os.stat(directory)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # .ipynb_checkpoints has copies
        yield directory, folders, names


def _once(paths: set[str], found_problems: list[Problem]) -> set[str]:
    """Returns the paths without links to another one of them, or to the same file; reports each."""
    links = {path: os.path.realpath(path) for path in paths if os.path.islink(path)}
    files_of = {os.path.realpath(path) for path in paths - links.keys()} if links else set()
    for link in sorted(links):
        if links[link] in files_of:
            where = problems.REPEATED_IMAGE, os.path.dirname(link), "link"
            found_problems.append(Problem(*where, f"{os.path.basename(link)} is {links[link]}", "taken once"))
            paths.discard(link)
        files_of.add(links[link])
    return paths


def _in_list(file: str, path: str, found_problems: list[Problem], max_mb: int) -> set[str]:
    """Returns the images of a list. A relative path starts at the data set's path or at the list's own folder.

    A path may be spelled in another way, as folders.py says.
    """
    paths: set[str] = set()
    folders, starts = Folders(), (path, os.path.dirname(file))
    for number, entry in _lines(file, max_mb):
        candidates = [os.path.normpath(os.path.join(start, entry)) for start in starts]
        found = next((candidate for candidate in candidates if folders.have(candidate)), None)
        found = found or next(filter(None, (folders.respelled(start, entry) for start in starts)), None)
        where = (file, f"line {number}")
        if found is None:
            found_problems.append(Problem(problems.MISSING_FILE, *where, candidates[0], "image left out"))
        elif found in paths:
            found_problems.append(Problem(problems.REPEATED_IMAGE, *where, entry, "taken once"))
        else:
            paths.add(found)
    return paths


def _lines(file: str, max_mb: int) -> list[tuple[int, str]]:
    try:
        lines = files.read_text(file, max_mb).split("\n")
    except (OSError, ValueError) as error:  # ValueError: another encoding
        raise UserError(f"{file} is not a list of image paths ({error})", "give a folder or a text file") from error
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
