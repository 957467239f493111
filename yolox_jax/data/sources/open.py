"""The data section of a config -> the source of one split."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from yolox_jax.data.sources.coco import CocoSource
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.sources.tfds import TfdsSource
from yolox_jax.data.sources.voc import VocSource
from yolox_jax.data.sources.yolo_txt import YoloTxtSource
from yolox_jax.types import Source

_SPLITS = ("train", "val")


def open_split(data: Mapping[str, Any], split: str) -> Source:
    """The split "train" or "val" of `data`, a config's data section.

    kind "coco" reads root, train, train_images, val, val_images: a relative path is relative to root, and root to the
    working directory. kind "voc" reads root, the folder VOCdevkit; train and val, one or more "VOC2007/trainval" with
    commas between; and class_names, if the xml files are not to say. kind "yolo_txt" reads yaml, relative to root and
    "data.yaml" if not given. kind "tfds" reads root, the folder of a version; train and val, names of splits; and tfds,
    the names of features that are not called as in coco/2017. kind "shapes" reads shapes = {num_train, num_val, seed}.
    Errors name the config's field.
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
            f"train: {', '.join(train_names)}; val: {', '.join(val_names)}; "
            "give both files the same categories, or for kind voc name them in config.data.class_names"
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


def _open_voc(data: Mapping[str, Any], split: str) -> VocSource:
    root, lists = _root(data), _strings(_field(data, split))
    if not lists:
        raise ValueError(f"config.data.{split} names no list; give FOLDER/SPLIT, such as VOC2007/trainval")
    for each in lists:
        folder, separator, name = each.rpartition("/")
        if not separator or not folder or not name:
            raise ValueError(f"config.data.{split}: {each!r} is not FOLDER/SPLIT, such as VOC2007/trainval")
        listed = root / folder / "ImageSets" / "Main" / f"{name}.txt"
        if not listed.is_file():
            raise FileNotFoundError(
                f"config.data.{split}: there is no file {listed} for {each}; correct it, or config.data.root"
            )
        for part in ("JPEGImages", "Annotations"):
            if not (root / folder / part).is_dir():
                raise FileNotFoundError(
                    f"config.data.{split}: {root / folder} has no folder {part}; give a folder of Pascal VOC"
                )
    class_names = _strings(data.get("class_names") or ())
    if len(set(class_names)) < len(class_names):
        raise ValueError(f"config.data.class_names has a name twice: {', '.join(class_names)}; name each class once")
    return VocSource(root, lists, class_names or None, split)


def _open_yolo_txt(data: Mapping[str, Any], split: str) -> YoloTxtSource:
    file = _root(data) / Path(data.get("yaml") or "data.yaml").expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"config.data.yaml: there is no file {file}; give the yaml of a YOLO data set")
    return YoloTxtSource(file, split)


def _open_shapes(data: Mapping[str, Any], split: str) -> ShapesSource:
    shapes = _field(data, "shapes")
    seed = _field(shapes, "seed", "config.data.shapes")
    num_images = _field(shapes, f"num_{split}", "config.data.shapes")
    # Even seeds train and odd ones validate, so no seed's training pictures are another seed's validation pictures.
    return ShapesSource(num_images, 2 * seed + _SPLITS.index(split))


def _open_tfds(data: Mapping[str, Any], split: str) -> TfdsSource:
    return TfdsSource(_root(data), str(_field(data, split)), dict(data.get("tfds") or {}))


_OPENERS: dict[str, Callable[[Mapping[str, Any], str], Source]] = {
    "coco": _open_coco,
    "shapes": _open_shapes,
    "tfds": _open_tfds,
    "voc": _open_voc,
    "yolo_txt": _open_yolo_txt,
}


def _path(data: Mapping[str, Any], name: str) -> Path:
    """The absolute path in a field; an absolute value leaves root aside."""
    return _root(data) / Path(_field(data, name)).expanduser()


def _root(data: Mapping[str, Any]) -> Path:
    return Path(data.get("root") or "").expanduser().absolute()


def _strings(value: str | Iterable[str]) -> tuple[str, ...]:
    """Of a sequence, or of one string with commas between."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip())


def _field(section: Mapping[str, Any], name: str, section_name: str = "config.data") -> Any:
    value = section.get(name)
    if value is None or value == "":
        raise ValueError(f"{section_name}.{name} is {'empty' if name in section else 'missing'}; set it")
    return value
