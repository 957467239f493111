"""Finds and opens the files of TensorFlow Datasets (tfds), without importing TensorFlow."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from yolox_jax.data.sources.documents import MAX_CLASSES
from yolox_jax.data.sources.tfds_description import FEATURES, INFO, check_description
from yolox_jax.errors import NotFoundError, UserError

_OF_THE_RECORD = ("image", "image_id", "objects")  # features of the record; the others are those of each object
_OPTIONAL = ("image_id", "is_crowd", "area")


@dataclasses.dataclass(frozen=True)
class FeatureNames:
    """The names of the features, by default those of tfds' coco/2017; None for an optional feature that is missing."""

    image: str = "image"
    image_id: str | None = "image/id"
    objects: str = "objects"
    bbox: str = "bbox"
    label: str = "label"
    is_crowd: str | None = "is_crowd"
    area: str | None = "area"


_VERSION = re.compile(r"\d+\.\d+\.\d+")
_AGAIN = "copy or write the data set again"
_ADVICE = f"give the folder with a version's {INFO}, like tensorflow_datasets/coco/2017/1.1.0"


def import_tfds() -> ModuleType:
    """Imports tensorflow_datasets; only here, when it is needed, since it is slow to import (benchmarks/NOTES.md).

    Raises:
      UserError: it is not installed, or cannot be imported.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"a data set of TensorFlow Datasets needs a package that is not installed ({error})",
            "pip install tensorflow-datasets (TensorFlow itself is not needed)",
        ) from error
    if not hasattr(tensorflow_datasets, "features"):  # it logs what its import raises, and goes on
        raise UserError(
            "tensorflow_datasets cannot be imported; its own message is above",
            'if that names protobuf, as in Colab: pip install "tensorflow-metadata<1.18"',
        )
    return tensorflow_datasets


def find_version(root: Path) -> Path:
    """Returns `root` if it is the folder of a version (coco/2017/1.1.0), else the only version below it.

    Raises:
      UserError: there is no version, or there are several.
    """
    if (root / INFO).is_file():
        return root
    if not root.is_dir():
        raise NotFoundError(f"config.data.root: there is no folder {root}", _ADVICE)
    found = sorted(path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/{INFO}"))
    versions = [folder for folder in found if _VERSION.fullmatch(folder.name)]
    if not versions:
        raise NotFoundError(f"config.data.root: no tfds data set is in {root}", _ADVICE)
    if len(versions) > 1:
        raise UserError(
            f"config.data.root: {root} has several versions", f"give one of {', '.join(map(str, versions))}"
        )
    return versions[0]


def open_builder(folder: Path) -> Any:
    """Opens the tfds builder of a version's folder, which describes its features and splits.

    Raises:
      UserError: the description cannot be read, or would run code that is not tfds' own.
    """
    tfds = import_tfds()
    check_description(folder)
    with _described(folder):
        builder = tfds.builder_from_directory(str(folder))
    if not isinstance(builder.info.features, tfds.features.FeaturesDict):
        raise UserError(f"{folder / FEATURES} describes one feature, not a dict of features", _AGAIN)
    return builder


@contextlib.contextmanager
def _described(folder: Path) -> Iterator[None]:
    """Turns what tfds raises about a description into a UserError: json, protobuf and tfds have their own errors."""
    try:
        yield
    except (NotImplementedError, UserError):
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"tfds cannot use {folder / FEATURES} and {INFO} beside it ({reason})", _AGAIN) from error


def feature_names(features: Any, given: Mapping[str, str], folder: Path) -> FeatureNames:
    """Adds the default names to the given ones, and checks that the features exist and have the right kind.

    A feature in `_OPTIONAL` may be missing under its default name. If its given name is empty, it is not read.

    Raises:
      UserError: an unknown key, or a feature that is missing or of another kind.
    """
    defaults = dataclasses.asdict(FeatureNames())
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise UserError(f"config.data.tfds.{unknown[0]} is not known", f"the fields are {', '.join(defaults)}")
    names: dict[str, Any] = {}
    for key in defaults:
        name = given.get(key, defaults[key])
        if not name and key in _OPTIONAL:
            names[key] = None
            continue
        name = name or defaults[key]
        there = features if key in _OF_THE_RECORD else features[names["objects"]].feature
        if name not in there:
            if name != defaults[key] or key not in _OPTIONAL:
                raise UserError(
                    f"{folder} has no feature {name!r} for {key}, only {', '.join(there)}",
                    f"name it by config.data.tfds.{key}",
                )
            names[key] = None
            continue
        with _described(folder):
            expected = _wrong_kind(key, there[name])
        if expected:
            raise UserError(
                f"{folder}: the feature {name!r} is {there[name]!r}, but {key} must be {expected}",
                f"name another feature by config.data.tfds.{key}",
            )
        names[key] = name
    return FeatureNames(**names)


def _wrong_kind(key: str, feature: Any) -> str:
    """Returns the kind that the feature of this key must have, or an empty string if it has it."""
    kinds = import_tfds().features
    if key == "image" and not isinstance(feature, kinds.Image):
        return "an Image"
    if key == "objects" and not isinstance(getattr(feature, "feature", None), kinds.FeaturesDict):
        return "a Sequence of a dict"
    if key == "label" and not isinstance(feature, kinds.ClassLabel):
        return "a ClassLabel, whose names are the classes"
    if key in ("image_id", "is_crowd", "area") and not (
        type(feature) in (kinds.Tensor, kinds.Scalar, kinds.Text, kinds.ClassLabel) and feature.shape == ()
    ):
        return "one value"
    if key == "bbox":
        format = getattr(feature, "bbox_format", None)  # a plain tensor has none
        if feature.shape != (4,) or (format is not None and format.name != "REL_YXYX"):
            return "ymin, xmin, ymax, xmax in fractions of the image (tfds' REL_YXYX)"
    return ""


def open_records(builder: Any, split: str, folder: Path) -> Sequence[Any]:
    """Opens the records of a split for random access from any thread; their images stay encoded.

    Raises:
      UserError: there is no such split, its format has no random access, or a file is missing.
    """
    tfds = import_tfds()
    with _described(folder):
        try:
            builder.info.splits[split]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{folder} has no split {split!r}, only {', '.join(builder.info.splits)}",
                "set config.data.train and config.data.val to these",
            ) from error
    skip = {name: tfds.decode.SkipDecoding() for name, kind in builder.info.features.items() if _is_image(tfds, kind)}
    try:
        with _described(folder):
            records = builder.as_data_source(split, decoders=skip)
    except NotImplementedError as error:
        raise UserError(
            f"{folder} is in the format {builder.info.file_format.value}, which has no random access",
            f"convert it by tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record, which "
            "needs TensorFlow, or write it from its original files by python -m yolox_jax.tools.to_tfds",
        ) from error
    files = {Path(part.filename) for part in builder.info.splits[split].file_instructions}
    missing = sorted(file for file in files if not file.is_file())
    if missing:
        raise NotFoundError(f"{missing[0]} is missing ({len(missing)} of {len(files)} files)", f"copy {folder} again")
    _check_counts(builder, files, folder)
    return records


def _check_counts(builder: Any, files: set[Path], folder: Path) -> None:
    """Checks that each file has as many records as the description says; tfds takes its word for it."""
    # Here, since tfds itself imports it only for this format. It ships no type information.
    from array_record.python.array_record_module import ArrayRecordReader  # type: ignore[import-untyped]

    for split in builder.info.splits.values():
        for path, count in zip(split.filepaths, split.shard_lengths, strict=True):
            if Path(path) not in files:
                continue
            try:
                reader = ArrayRecordReader(str(path))
                found = reader.num_records()
                reader.close()
            except Exception as error:  # it has its own errors
                raise UserError(f"{path} cannot be read ({error})", f"copy {folder} again") from error
            if found != count:
                raise UserError(f"{folder / INFO} counts {count} records in {path}, which has {found}", _AGAIN)


def class_names(label: Any, name: str, folder: Path) -> tuple[str, ...]:
    """Returns the names of a ClassLabel, which are "0", "1" … if the data set has none.

    Raises:
      UserError: they are not as many as it has classes, or one occurs twice; tfds ignores that.
    """
    if not isinstance(label.num_classes, int) or not 0 < label.num_classes <= MAX_CLASSES:
        raise UserError(
            f"{folder / FEATURES}: {name!r} has {label.num_classes} classes", f"write 1 to {MAX_CLASSES} classes"
        )
    names = tuple(map(str, label.names))
    if len(set(names)) != label.num_classes or len(names) != label.num_classes:
        raise UserError(
            f"{folder}: {name!r} has {label.num_classes} classes, but its labels.txt has {len(set(names))} names",
            _AGAIN,
        )
    return names


def _is_image(tfds: ModuleType, feature: Any) -> bool:
    return isinstance(feature, tfds.features.Image)
