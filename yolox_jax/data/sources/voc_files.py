"""Finds the files of a Pascal VOC folder: the xml and the image of a listed name."""

import os
from collections.abc import Iterable, Sequence

from yolox_jax.data import images
from yolox_jax.data.folders import Folders, same_name


def listed_names(folders: Folders, folder: str, split: str, lines: Sequence[str]) -> list[str]:
    """Returns the name in each line of a list; empty for an empty line.

    The list of a single class (CLASS_SPLIT) has a second column: 1 if the image shows the class, -1 if not, 0 if only
    as a difficult object. It is ignored: all listed images are used. But names may end in such a number, too, so a line
    is read as the name that has an xml or an image.
    """
    halves = [_name_and_column(line) for line in lines]
    have_column = all(column for name, column in halves if name)

    def is_there(name: str) -> bool:
        return find_xml(folders, folder, name) is not None or find_image(folders, folder, name, "") is not None

    names = []
    for line, (name, column) in zip(lines, halves, strict=True):
        whole = line.strip()
        if column and (is_there(name) if have_column and "_" in split else not is_there(whole)):
            whole = name if is_there(name) or have_column else whole
        names.append(whole)
    return names


def _name_and_column(line: str) -> tuple[str, str]:
    *first, last = line.rsplit(maxsplit=1) or [""]
    return (first[0].strip(), last) if first and last in ("-1", "0", "1") else (line.strip(), "")


def find_xml(folders: Folders, folder: str, name: str) -> str | None:
    """Finds the xml of a listed name in `folder`, also under another spelling; None if there is none."""
    directory, exact = os.path.join(folder, "Annotations"), f"{name}.xml"
    path = os.path.join(directory, exact)
    return path if folders.have(path) else folders.respelled(directory, exact)


def find_image(folders: Folders, folder: str, name: str, filename: str) -> str | None:
    """Finds the image of an xml: the one of its own name, whatever its ending, or else the one that it states.

    If several endings are there, .jpg comes first, then that of `filename`, the one that the xml states. Images that
    were copied or renamed keep an xml with the old `filename`, so an image that has an xml of its own is never taken.
    """
    inner, stem = os.path.split(name)
    images_in, xmls_in = (os.path.join(folder, part, inner) for part in ("JPEGImages", "Annotations"))
    stated = filename.replace("\\", "/").rsplit("/", 1)[-1]

    def is_stated(image: str) -> bool:
        return same_name(image) == same_name(stated)

    own = _images(folders.with_stem(images_in, stem))
    exact = [image for image in own if _stem(image) == stem]
    respelled = [image for image in own if f"{_stem(image)}.xml" not in folders.names(xmls_in)]
    if exact or respelled:
        best = sorted(exact or respelled, key=lambda image: (not image.endswith(".jpg"), not is_stated(image)))
        return os.path.join(images_in, best[0])

    others = (
        _images(folders.with_stem(images_in, _stem(stated)) + folders.with_stem(images_in, stated)) if stated else []
    )
    free = [image for image in others if not any(x.endswith(".xml") for x in folders.with_stem(xmls_in, _stem(image)))]
    return os.path.join(images_in, min(free, key=lambda image: not is_stated(image))) if free else None


def _images(names: Iterable[str]) -> list[str]:
    return [name for name in names if os.path.splitext(name)[1].lower() in images.SUFFIXES]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
