"""The data section of a config -> the source of one split."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from yolox_jax.data.example import Source
from yolox_jax.data.sources.coco import CocoSource
from yolox_jax.data.sources.shapes import ShapesSource

_SPLITS = ("train", "val")


def open_split(data: Mapping[str, Any], split: str) -> Source:
    """The split "train" or "val" of `data`, a config's data section.

    kind "coco" reads root, train, train_images, val, val_images: a relative path is relative to root, and root to the
    working directory. kind "shapes" reads shapes = {num_train, num_val, seed}. Errors name the config's field.
    """
    if split not in _SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(_SPLITS)}")
    kind = _field(data, "kind")
    if kind not in _OPENERS:
        raise ValueError(f"config.data.kind is {kind!r}; known kinds: {', '.join(sorted(_OPENERS))}")
    return _OPENERS[kind](data, split)


def check_classes(num_classes: int | None, train_names: tuple[str, ...], val_names: tuple[str, ...]) -> None:
    """Raises ValueError where config.num_classes, if given, or the two splits contradict each other."""
    if num_classes is not None and num_classes != len(train_names):
        raise ValueError(
            f"config.num_classes is {num_classes}, but the data set lists {len(train_names)} classes: "
            f"{', '.join(train_names)}; leave config.num_classes out, or correct the data set"
        )
    if train_names != val_names:
        raise ValueError(
            "the classes of the two splits differ; "
            f"train: {', '.join(train_names)}; val: {', '.join(val_names)}; give both files the same categories"
        )


def _open_coco(data: Mapping[str, Any], split: str) -> CocoSource:
    annotations, images = _path(data, split), _path(data, f"{split}_images")
    if not annotations.is_file():
        raise FileNotFoundError(f"config.data.{split}: there is no file {annotations}; give a COCO annotation json")
    if not images.is_dir():
        raise FileNotFoundError(
            f"config.data.{split}_images: there is no folder {images}; give the folder of the images"
        )
    return CocoSource(annotations, images, split)


def _open_shapes(data: Mapping[str, Any], split: str) -> ShapesSource:
    shapes = _field(data, "shapes")
    seed = _field(shapes, "seed", "config.data.shapes")
    num_images = _field(shapes, f"num_{split}", "config.data.shapes")
    # Even seeds train and odd ones validate, so no seed's training pictures are another seed's validation pictures.
    return ShapesSource(num_images, 2 * seed + _SPLITS.index(split))


_OPENERS: dict[str, Callable[[Mapping[str, Any], str], Source]] = {"coco": _open_coco, "shapes": _open_shapes}


def _path(data: Mapping[str, Any], name: str) -> Path:
    """The absolute path in a field; an absolute value leaves root aside."""
    root = Path(data.get("root") or "").expanduser()
    return (root / Path(_field(data, name)).expanduser()).absolute()


def _field(section: Mapping[str, Any], name: str, section_name: str = "config.data") -> Any:
    value = section.get(name)
    if value is None or value == "":
        raise ValueError(f"{section_name}.{name} is {'empty' if name in section else 'missing'}; set it")
    return value
