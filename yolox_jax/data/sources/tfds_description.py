"""Checks features.json and dataset_info.json of a tfds data set before tfds reads them.

A description names the Python class of each feature, and tfds imports its module: a file of that name in the working
directory would run. Only tfds' own classes may be named here.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yolox_jax.data import files
from yolox_jax.data.sources.documents import DocumentError, parse_json, shortened
from yolox_jax.errors import NotFoundError, UserError

INFO, FEATURES = "dataset_info.json", "features.json"

_MODULES = "tensorflow_datasets.core.features."
_ALLOWED = frozenset(
    _MODULES + name
    for name in (
        *("audio_feature.Audio", "bounding_boxes.BBoxFeature", "class_label_feature.ClassLabel"),
        *("dataset_feature.Dataset", "feature.Tensor", "features_dict.FeaturesDict", "image_feature.Image"),
        *("labeled_image.LabeledImage", "scalar.Scalar", "sequence_feature.Sequence", "tensor_feature.Tensor"),
        *("text_feature.Text", "top_level_feature.TopLevelFeature", "translation_feature.Translation"),
        *("translation_feature.TranslationVariableLanguages", "video_feature.Video"),
    )
)
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # "type" before tfds 4.6
_JSON_KEYS = ("json", "content")  # their values may be json in a text, which tfds parses too
_ADVICE = "copy or write the data set again"
_DTYPE = re.compile(r"(u?int|b?float|complex)\d{1,3}|bool|str|string|object")  # tfds asks TensorFlow about any other
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_COUNT = re.compile(r"\d{1,18}")  # protobuf writes 64-bit numbers as text


def check_description(folder: Path) -> None:
    """Checks both files of a version's folder, and the lists of class names beside them.

    Raises:
      UserError: a file is missing or damaged, or a feature is of a class that is not tfds' own.
    """
    for path in sorted(folder.glob("*.labels.txt")):
        _check_names(path)
    info, features = _read(folder / INFO), _read(folder / FEATURES)
    _check_classes(folder / FEATURES, features)
    _check_classes(folder / INFO, info.get("features"))  # it may have them too
    _check_structure(folder / FEATURES, features)
    for field, is_right in _INFO_FIELDS.items():
        if not is_right(info.get(field)):
            raise UserError(f"{folder / INFO} has no usable {field!r}: {shortened(info.get(field))}", _ADVICE)
    for number, split in enumerate(info["splits"]):
        for field, is_right in _SPLIT_FIELDS.items():
            if not is_right(split.get(field)):
                place = f"split {number} has no usable {field!r}: {shortened(split.get(field))}"
                raise UserError(f"{folder / INFO}: {place}", _ADVICE)


def _check_names(path: Path) -> None:
    """Checks a list of class names: tfds ignores one that cannot be opened, waits for a pipe, and keeps a mark."""
    try:
        data = files.read_bytes(path)
        names = [name for name in data.decode().split("\n") if name.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})", _ADVICE) from error
    if data.startswith(codecs.BOM_UTF8):
        raise UserError(f"{path} begins with a byte order mark", "save it as UTF-8 without one")
    if not names:
        raise UserError(f"{path} has no names", _ADVICE)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(files.read_bytes(path))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}, which describes the data set", _ADVICE) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})", _ADVICE) from error
    except DocumentError as error:
        raise UserError(f"{path} {error}", _ADVICE) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is a {type(content).__name__}, not a json object", _ADVICE)
    return content


def _check_classes(path: Path, content: Any) -> None:
    for name in _class_names(content, path):
        if name not in _ALLOWED:
            raise UserError(
                f"{path} names the Python class {shortened(name)}, which is not tfds' own; nothing of it was run",
                "write the data set with tfds' own features only, as python -m yolox_jax.tools.to_tfds does",
            )


def _check_structure(path: Path, features: dict[str, Any]) -> None:
    """Checks that each feature has a class and a content, in the form that tfds writes since version 4.6."""
    if isinstance(features.get("type"), str):  # the form before; the top level of some newer files has it too
        return
    waiting: list[tuple[str, Any]] = [("the data set", features)]
    while waiting:
        name, feature = waiting.pop()
        if not isinstance(feature, dict) or not _is_text(feature.get("pythonClassName")):
            raise UserError(f"{path}: {name} has no pythonClassName: {shortened(feature)}", _ADVICE)
        contents = [key for key in feature if key not in ("pythonClassName", "description", "valueRange")]
        if len(contents) != 1 or not isinstance(feature[contents[0]], dict):
            raise UserError(f"{path}: {name} does not have one content: {', '.join(contents) or 'none'}", _ADVICE)
        content = feature[contents[0]]
        if not _DTYPE.fullmatch(str(content.get("dtype", "bool"))):
            raise UserError(f"{path}: {name} has the unknown dtype {shortened(content['dtype'])}", _ADVICE)
        if contents[0] == "featuresDict" and isinstance(content.get("features", {}), dict):
            waiting += [(f"feature {child!r}", content["features"][child]) for child in content.get("features", {})]
        elif contents[0] == "sequence":
            waiting.append((f"the sequence in {name}", content.get("feature")))


def _class_names(content: Any, path: Path) -> Iterator[str]:
    """Yields every class name at any depth, also within json in a text."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(item, str):
                    waiting.append(item)
                elif key in _CLASS_KEYS:
                    yield item
                elif key in _JSON_KEYS:
                    try:
                        waiting.append(parse_json(item.encode()))
                    except DocumentError as error:
                        raise UserError(f"{path} {error}", _ADVICE) from error


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(_is_count(count) for count in value)


def _is_count(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and value >= 0
    return isinstance(value, str) and _COUNT.fullmatch(value) is not None


def _is_file_template(value: object) -> bool:
    """True if it is missing, or names files in the folder itself."""
    return value is None or (isinstance(value, str) and "/" not in value and "\\" not in value)


# The fields that are read, and a check of each one's value.
_INFO_FIELDS = {
    "name": _is_text,
    "version": lambda value: isinstance(value, str) and _VERSION.fullmatch(value) is not None,
    "fileFormat": lambda value: value is None or _is_text(value),
    "splits": lambda value: isinstance(value, list) and value and all(isinstance(each, dict) for each in value),
}
_SPLIT_FIELDS = {
    "name": _is_text,
    "shardLengths": lambda value: value is None or _are_counts(value),  # protobuf leaves an empty list out
    "filepathTemplate": _is_file_template,
}
