"""Opens several data sets as one: config.data.also names those beside the first."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from yolox_jax.errors import UserError
from yolox_jax.types import Example, Problem, Source

_logger = logging.getLogger("yolox_jax.data")

Open = Callable[[Mapping[str, Any], str], Source]


def opened(data: Mapping[str, Any], split: str, open_one: Open) -> Source:
    """Opens a split of the data set that `data` describes and of those in its field `also`, one after another.

    Each entry of `also` has the fields of config.data in which its data set differs from the first. One whose field
    `split` is empty there has no images in it, but its classes count.

    Raises:
      UserError: a data set cannot be opened, or an entry is not one; names the data set.
    """
    sections = _sections(data)
    left_out = [False, *(entry.get(split) == "" for entry in data.get("also") or ())]
    if len(sections) == 1:
        return open_one(sections[0], split)
    names = _names([str(section.get("root") or section.get("kind")) for section in sections])
    parts: list[tuple[str, Source]] = []
    classes: list[tuple[str, tuple[str, ...]]] = []
    for number, (section, name, is_left_out) in enumerate(zip(sections, names, left_out, strict=True), 1):
        with _naming(f"data set {number} ({section.get('root') or section.get('kind')})"):
            source = open_one(section, _other(split) if is_left_out else split)
        classes.append((name, source.class_names))
        if not is_left_out:
            parts.append((name, source))
    return ConcatenatedSource(parts, _merged(classes))


def kinds(data: Mapping[str, Any]) -> str:
    """Returns the kinds of these data sets, each once, for messages."""
    return " and ".join(dict.fromkeys(section["kind"] for section in _sections(data)))


def parts_of(source: Source) -> Sequence[tuple[str, Source]]:
    """Returns the data sets of a source that `opened` returned, with their names; a single one has none."""
    return source.parts if isinstance(source, ConcatenatedSource) else [("", source)]


class ConcatenatedSource:
    """The images of several sources, one after another. An id is the source's name, "/" and the id there."""

    def __init__(self, parts: Sequence[tuple[str, Source]], merged_names: tuple[str, ...]):
        self.class_names = merged_names
        self.parts = parts
        self._names, self._sources = zip(*parts, strict=True)
        self._starts = np.cumsum([0, *(len(source) for source in self._sources)])
        self._labels = [
            np.array([merged_names.index(name) for name in source.class_names], np.int32) for source in self._sources
        ]

    @property
    def problems(self) -> list[Problem]:
        return [problem for source in self._sources for problem in source.problems]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Example:
        part, place = self._place(index)
        example = self._sources[part][place]
        labels = self._labels[part][example.labels]
        return Example(example.image, example.boxes_xyxy, labels, self._id(part, example.image_id))

    def image_id(self, index: int) -> str:
        part, place = self._place(index)
        return self._id(part, self._sources[part].image_id(place))

    def num_boxes(self, index: int) -> int:
        part, place = self._place(index)
        return self._sources[part].num_boxes(place)

    def labels(self, index: int) -> np.ndarray:
        part, place = self._place(index)
        return self._labels[part][self._sources[part].labels(place)]

    def encoded(self, index: int) -> bytes | None:
        part, place = self._place(index)
        return self._sources[part].encoded(place)

    def ground_truth(self) -> dict[str, Any]:
        """Returns all images and boxes. Category ids are label + 1, annotations are numbered from 1."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for part, source in enumerate(self._sources):
            truth = source.ground_truth()
            label_of = {each["id"]: int(self._labels[part][own]) for own, each in enumerate(truth["categories"])}
            images += [image | {"id": self._id(part, image["id"])} for image in truth["images"]]
            for each in truth["annotations"]:
                changed = {"id": len(annotations) + 1, "image_id": self._id(part, each["image_id"])}
                annotations.append(each | changed | {"category_id": label_of[each["category_id"]] + 1})
        categories = [{"id": label, "name": name} for label, name in enumerate(self.class_names, 1)]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _place(self, index: int) -> tuple[int, int]:
        """Returns the number of the source that has an image, and the image's index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])

    def _id(self, part: int, id: int | str) -> str:
        return f"{self._names[part]}/{id}"


def _sections(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the data section of each data set, the first one's first."""
    first = {name: value for name, value in data.items() if name != "also"}
    sections = [first]
    for number, entry in enumerate(data.get("also") or ()):
        name = f"config.data.also[{number}]"
        if not hasattr(entry, "items"):
            raise UserError(f"{name} is {entry!r}", 'give the fields that differ, such as {"root": "datasets/more"}')
        if unknown := sorted(set(entry) - set(first)):
            raise UserError(f"{name} has {', '.join(map(repr, unknown))}", "give fields of config.data")
        changed = {
            field: {**first[field], **value} if hasattr(value, "items") else value for field, value in entry.items()
        }
        sections.append(first | changed)
    return sections


def _other(split: str) -> str:
    return "val" if split == "train" else "train"


def _names(roots: Sequence[str]) -> list[str]:
    """Returns a name for each data set: the last folder of its root, numbered if several have it."""
    last = [PurePath(root).name or root for root in roots]
    return [name if last.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(last, 1)]


def _merged(classes: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    """Returns the classes of all data sets, each once; warns of those that differ only in upper and lower case."""
    merged = tuple(dict.fromkeys(name for _, own in classes for name in own))
    first: dict[str, str] = {}
    for name in merged:
        if (other := first.setdefault(name.strip().casefold(), name)) != name:
            where = [next(of for of, own in classes if each in own) for each in (other, name)]
            _logger.warning(
                "the classes %r of %s and %r of %s stay two classes: rename one of them if they are the same",
                *(other, where[0], name, where[1]),
            )
    return merged


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Names the data set in a UserError of the block, which keeps its type."""
    try:
        yield
    except UserError as error:
        error.what = f"{name}: {error.what}"
        error.args = (error.what, error.advice)
        raise
