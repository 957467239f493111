"""Finds and opens what TensorFlow Datasets (tfds) wrote, or says what is wrong with it. Never imports TensorFlow."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_OF_THE_RECORD = ("image", "image_id", "objects")  # the others are features of each object
_OPTIONAL = ("image_id", "is_crowd", "area")


@dataclasses.dataclass(frozen=True)
class FeatureNames:
    """What the features are called, by default as in tfds' coco/2017; None for those a data set can do without."""

    image: str = "image"
    image_id: str | None = "image/id"
    objects: str = "objects"
    bbox: str = "bbox"
    label: str = "label"
    is_crowd: str | None = "is_crowd"
    area: str | None = "area"


_VERSION = re.compile(r"\d+\.\d+\.\d+")
_INFO = "dataset_info.json"
_ADVICE = f"give the folder with a version's {_INFO}, like tensorflow_datasets/coco/2017/1.1.0"


def import_tfds() -> ModuleType:
    """The package tensorflow_datasets; it takes half a second to import, so only for those who use it."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ValueError(
            f"a data set of TensorFlow Datasets needs a package that is not installed ({error}); "
            "pip install tensorflow-datasets (TensorFlow itself is not needed)"
        ) from error
    return tensorflow_datasets


def find_version(root: Path) -> Path:
    """`root` if it is the folder of a version (coco/2017/1.1.0), or the only one under it."""
    if (root / _INFO).is_file():
        return root
    if not root.is_dir():
        raise FileNotFoundError(f"config.data.root: there is no folder {root}; {_ADVICE}")
    found = sorted(path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/{_INFO}"))
    versions = [folder for folder in found if _VERSION.fullmatch(folder.name)]
    if not versions:
        raise FileNotFoundError(f"config.data.root: no tfds data set is in {root}; {_ADVICE}")
    if len(versions) > 1:
        raise ValueError(f"config.data.root: {root} has several versions; give one of {', '.join(map(str, versions))}")
    return versions[0]


def feature_names(features: Any, given: Mapping[str, str], folder: Path) -> FeatureNames:
    """The names given, and the usual ones for the rest. An optional feature may be missing under its usual
    name, and is not read where its name is given as empty."""
    usual = dataclasses.asdict(FeatureNames())
    unknown = sorted(set(given) - set(usual))
    if unknown:
        raise ValueError(f"config.data.tfds.{unknown[0]} is not known; known: {', '.join(usual)}")
    names: dict[str, Any] = {}
    for key in usual:
        name = given.get(key, usual[key])
        if not name and key in _OPTIONAL:
            names[key] = None
            continue
        name = name or usual[key]
        there = features if key in _OF_THE_RECORD else features[names["objects"]].feature
        if name not in there:
            if name != usual[key] or key not in _OPTIONAL:
                raise ValueError(
                    f"{folder} has no feature {name!r} to be its {key}, only {', '.join(there)}; "
                    f"name it by config.data.tfds.{key}"
                )
            names[key] = None
            continue
        expected = _unlike(key, there[name])
        if expected:
            raise ValueError(f"{folder}: the feature {name!r} is {there[name]!r}, but {key} must be {expected}")
        names[key] = name
    return FeatureNames(**names)


def _unlike(key: str, feature: Any) -> str:
    """What the feature should have been; empty if it is right."""
    kinds = import_tfds().features
    if key == "image" and not isinstance(feature, kinds.Image):
        return "an Image"
    if key == "objects" and not isinstance(getattr(feature, "feature", None), kinds.FeaturesDict):
        return "a Sequence of a dict"
    if key == "label" and not isinstance(feature, kinds.ClassLabel):
        return "a ClassLabel, whose names are the classes"
    if key == "bbox":
        format = getattr(feature, "bbox_format", None)  # a plain tensor has none
        if feature.shape != (4,) or (format is not None and format.name != "REL_YXYX"):
            return "ymin, xmin, ymax, xmax in fractions of the image (tfds' REL_YXYX)"
    return ""


def open_records(builder: Any, split: str, folder: Path) -> Sequence[Any]:
    """The records of a split by index, with encoded images. Safe to use from several threads."""
    tfds = import_tfds()
    try:
        builder.info.splits[split]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{folder} has no split {split!r}; it has {', '.join(builder.info.splits)}: "
            "set config.data.train and config.data.val to these"
        ) from error
    skip = {name: tfds.decode.SkipDecoding() for name, kind in builder.info.features.items() if _is_image(tfds, kind)}
    try:
        records = builder.as_data_source(split, decoders=skip)
    except NotImplementedError as error:
        raise ValueError(
            f"{folder} is in the format {builder.info.file_format.value}, which has no random access; write it again: "
            f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record, where TensorFlow is "
            "installed, or python -m yolox_jax.tools.to_tfds from what it was made of"
        ) from error
    files = [Path(part.filename) for part in builder.info.splits[split].file_instructions]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is missing ({len(missing)} of {len(files)} files); copy {folder} again")
    return records


def _is_image(tfds: ModuleType, feature: Any) -> bool:
    return isinstance(feature, tfds.features.Image)
