"""Opens the source of one split from a config's data section."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from yolox_jax import storage
from yolox_jax.data import bucket_copy
from yolox_jax.data.images import ImageConfig
from yolox_jax.data.sources import class_names, several, usable
from yolox_jax.data.sources.coco import CocoSource
from yolox_jax.data.sources.documents import MAX_CLASSES
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.sources.tfds import TfdsSource
from yolox_jax.data.sources.voc import VocSource
from yolox_jax.data.sources.yolo_txt import YoloTxtSource
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.storage import BucketPath
from yolox_jax.types import Source

_SPLITS = ("train", "val")


def open_split(data: Mapping[str, Any], split: str, fit_hw: tuple[int, int] | None = None) -> Source:
    """Opens the split "train" or "val" of `data`, a config's data section, and checks that it has boxes to learn.

    `data` may name more data sets in its field `also` (data/sources/several.py); each is checked. The field
    `reduced_decoding` is for a caller that fits the images to a size next, `fit_hw`; for others it changes nothing.

    Raises:
      UserError: a field is wrong, or the files are not a data set of this kind; names the field or the file. Or
        `usable.check` refuses the split.
    """

    def open_one(section: Mapping[str, Any], split: str) -> Source:
        source = _open(section, split, {}, fit_hw if section.get("reduced_decoding") else None)
        usable.check(source, split)
        return source

    return several.opened(data, split, open_one)


def open_unchecked(data: Mapping[str, Any], split: str) -> Source:
    """Opens a split, even if none of its annotations can be used, for a program that reports why."""
    return several.opened(data, split, lambda section, split: _open(section, split, {"may_be_unusable": True}))


def _open(
    data: Mapping[str, Any], split: str, options: Mapping[str, Any], fit_hw: tuple[int, int] | None = None
) -> Source:
    """Opens a split without checking it.

    Each kind reads these fields. Relative paths start at root, and a relative root at the working directory.
      coco: root, train, train_images, val, val_images, crowd_as_object, merge_same_names.
      voc: root (the folder VOCdevkit); train and val, one or more "VOC2007/trainval" separated by commas; class_names
        (if empty, the classes are taken from the xml files).
      yolo_txt: root, yaml ("data.yaml" if empty), merge_same_names.
      tfds: root (the folder of a version); train and val, names of splits; tfds, the names of the features that are
        not named as in coco/2017; crowd_as_object.
      shapes: shapes = {num_train, num_val, seed}.
    All that read files have the fields of `ImageConfig`, too.
    A root in a bucket (gs://, s3://) is first copied to a folder below local_dir, as far as the split needs it.

    Raises:
      UserError: a field is wrong, or the files are not a data set of this kind; names the field or the file.
    """
    if split not in _SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(_SPLITS)}")
    kind = _field(data, "kind")
    if kind not in _OPENERS:
        raise UserError(f"config.data.kind is {kind!r}", f"choose one of {', '.join(sorted(_OPENERS))}")
    limits = {field.name: data[field.name] for field in dataclasses.fields(ImageConfig) if field.name in data}
    options = {"image_config": ImageConfig(**limits, fit_hw=fit_hw), **options}
    root = storage.resolve(str(data.get("root") or ""))
    if isinstance(root, BucketPath) and kind != "shapes":
        return _open_copy(data, split, options, root)
    source = _OPENERS[kind](data, split, options)
    if len(source.class_names) > MAX_CLASSES:
        raise UserError(
            f"the data set has {len(source.class_names)} classes", f"{MAX_CLASSES} at most fit: merge or drop some"
        )
    return source


def _open_copy(data: Mapping[str, Any], split: str, options: Mapping[str, Any], root: BucketPath) -> Source:
    """Opens the local copy of a data set in a bucket; messages name the bucket."""
    local = str(bucket_copy.local_root(data, root, split))
    try:
        return _open({**data, "root": local}, split, options)
    except NotFoundError as error:
        raise NotFoundError(error.what.replace(local, str(root)), error.advice) from error
    except UserError as error:
        raise UserError(error.what.replace(local, str(root)), error.advice) from error


def check_classes(num_classes: int | None, train_names: tuple[str, ...], val_names: tuple[str, ...]) -> None:
    """Checks that both splits have the same classes, and that there are config.num_classes of them if that is set.

    Raises:
      UserError: they differ.
    """
    if num_classes is not None and num_classes != len(train_names):
        raise UserError(
            f"config.num_classes is {num_classes}, but the data set has {len(train_names)} classes "
            f"({', '.join(train_names)})",
            "leave config.num_classes out, or correct the data set",
        )
    if train_names != val_names:
        raise UserError(
            f"the classes of the two splits differ ({class_names.difference(train_names, val_names, 'train', 'val')})",
            "give both files the same categories, or for kind voc name them in config.data.class_names",
        )


def _open_coco(data: Mapping[str, Any], split: str, options: Mapping[str, Any]) -> CocoSource:
    annotations, images = path_of(data, split), path_of(data, f"{split}_images")
    if not annotations.is_file():
        raise NotFoundError(f"config.data.{split}: there is no file {annotations}", "give a COCO annotation json")
    if not images.is_dir():
        raise NotFoundError(f"config.data.{split}_images: there is no folder {images}", "give the folder of the images")
    return CocoSource(annotations, images, split, **_flags(data, "crowd_as_object", "merge_same_names"), **options)


def _open_voc(data: Mapping[str, Any], split: str, options: Mapping[str, Any]) -> VocSource:
    root, lists = _root(data), _strings(_field(data, split))
    if not lists:
        raise UserError(f"config.data.{split} names no list", "give FOLDER/SPLIT, such as VOC2007/trainval")
    for each in lists:
        folder, separator, name = each.rpartition("/")
        if not separator or not folder or not name:
            raise UserError(f"config.data.{split} has {each!r}", "give FOLDER/SPLIT, such as VOC2007/trainval")
        listed = root / folder / "ImageSets" / "Main" / f"{name}.txt"
        if not listed.is_file():
            raise NotFoundError(
                f"config.data.{split}: there is no file {listed} for {each}", "correct it, or config.data.root"
            )
        for part in ("JPEGImages", "Annotations"):
            if not (root / folder / part).is_dir():
                raise NotFoundError(
                    f"config.data.{split}: {root / folder} has no folder {part}", "give a folder of Pascal VOC"
                )
    names = _strings(data.get("class_names") or ())
    if len(set(names)) < len(names):
        raise UserError(f"config.data.class_names has a name twice ({', '.join(names)})", "name each class once")
    source = VocSource(root, lists, names or None, split, **options)
    if not source.class_names:
        folders = sorted({str(root / each.rpartition("/")[0] / "Annotations") for each in lists})
        raise UserError(
            f"no xml in {', '.join(folders)} has an object with a name",
            "check that they are annotations of Pascal VOC (annotation/object/name)",
        )
    return source


def _open_yolo_txt(data: Mapping[str, Any], split: str, options: Mapping[str, Any]) -> YoloTxtSource:
    file = _root(data) / Path(data.get("yaml") or "data.yaml").expanduser()
    if not file.is_file():
        raise NotFoundError(f"config.data.yaml: there is no file {file}", "give the yaml of a YOLO data set")
    return YoloTxtSource(file, split, **_flags(data, "merge_same_names"), **options)


def _open_shapes(data: Mapping[str, Any], split: str, options: Mapping[str, Any]) -> ShapesSource:
    shapes = _field(data, "shapes")
    seed = _field(shapes, "seed", "config.data.shapes")
    num_images = _field(shapes, f"num_{split}", "config.data.shapes")
    for field, value, least in (("seed", seed, 0), (f"num_{split}", num_images, 1)):
        if value < least:
            raise UserError(f"config.data.shapes.{field} is {value}", f"give {least} or more")
    # Even seeds are for training and odd ones for validation, so that the two never share a picture, whatever the seed.
    return ShapesSource(num_images, 2 * seed + _SPLITS.index(split))


def _open_tfds(data: Mapping[str, Any], split: str, options: Mapping[str, Any]) -> TfdsSource:
    features = dict(data.get("tfds") or {})
    if data.get("crowd_as_object"):
        features["is_crowd"] = ""  # not read, so every object is one
    return TfdsSource(_root(data), str(_field(data, split)), features, options["image_config"])


_OPENERS: dict[str, Callable[[Mapping[str, Any], str, Mapping[str, Any]], Source]] = {
    "coco": _open_coco,
    "shapes": _open_shapes,
    "tfds": _open_tfds,
    "voc": _open_voc,
    "yolo_txt": _open_yolo_txt,
}


def _flags(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: bool(data.get(name)) for name in names}


def path_of(data: Mapping[str, Any], name: str) -> Path:
    """Returns a field's path, absolute; relative paths start at root."""
    return _root(data) / Path(_field(data, name)).expanduser()


def _root(data: Mapping[str, Any]) -> Path:
    return Path(data.get("root") or "").expanduser().absolute()


def _strings(value: str | Iterable[str]) -> tuple[str, ...]:
    """Splits a string at its commas, and strips each part; a sequence is already split."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip())


def _field(section: Mapping[str, Any], name: str, section_name: str = "config.data") -> Any:
    value = section.get(name)
    if value is None or value == "":
        raise UserError(f"{section_name}.{name} is {'empty' if name in section else 'missing'}", "set it")
    return value
