"""Copies a data set that is in a bucket to a local folder before it is opened: only what a split needs."""

import fnmatch
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from yolox_jax import storage
from yolox_jax.cache_folder import cache_folder
from yolox_jax.data.sources import yolo_labels, yolo_yaml
from yolox_jax.errors import UserError
from yolox_jax.storage import BucketPath

_ADVICE = "free some space, or set config.data.local_dir to a larger disk"
_RECORDS = re.compile(r".*-(?P<split>[^-/]+)\.\w+-\d+-of-\d+")  # coco-train.array_record-00000-of-00256


def local_root(data: Mapping[str, Any], root: BucketPath, split: str) -> Path:
    """Returns the local folder that stands for `root`, after copying what the split "train" or "val" needs.

    The folder is below config.data.local_dir or, if that is empty, below data/ in the cache folder. Processes of one
    machine share it, and later runs reuse it.

    Raises:
      UserError: the bucket cannot be read, or the disk is full.
    """
    local_dir = str(data.get("local_dir") or "")
    if storage.is_remote(local_dir):
        raise UserError(f"config.data.local_dir is {local_dir}", "give a folder on this machine's disk")
    base = Path(local_dir).expanduser() if local_dir else cache_folder() / "data"
    target = base.absolute() / root.scheme / Path(*root.parts)

    def copy(is_wanted: Callable[[str], bool]) -> None:
        storage.copy_folder(root, target, is_wanted, advice=_ADVICE)

    match data.get("kind"):
        case "coco":
            annotations, images = _inside(data, split), f"{_inside(data, f'{split}_images')}/"
            copy(lambda name: name == annotations or name.startswith(images))
        case "voc":
            folders = {each.strip().rpartition("/")[0] for each in _listed(data.get(split))}
            patterns = [
                f"{each}/{part}/*" for each in folders for part in ("ImageSets/Main", "JPEGImages", "Annotations")
            ]
            copy(lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
        case "yolo_txt":
            yaml = _inside(data, "yaml", "data.yaml")
            copy(lambda name: name == yaml)
            others = _other_splits(target, yaml, split)
            copy(lambda name: not name.startswith(others))
        case "tfds":
            wanted = str(data.get(split))
            copy(lambda name: _is_of_split(name, wanted))
        case _:
            copy(lambda name: True)
    return target


def _inside(data: Mapping[str, Any], field: str, default: str = "") -> str:
    """The path of a field, relative to the root.

    Raises:
      UserError: it is not below the root.
    """
    path = os.path.normpath(str(data.get(field) or default))
    if os.path.isabs(path) or path.startswith("..") or storage.is_remote(str(data.get(field) or "")):
        raise UserError(
            f"config.data.{field} is {data.get(field)}, but config.data.root is in a bucket",
            "give a path below the root",
        )
    return path


def _listed(value: Any) -> list[str]:
    return value.split(",") if isinstance(value, str) else list(value or ())


def _other_splits(target: Path, yaml: str, split: str) -> tuple[str, ...]:
    """Returns the folders below the root that only the other split needs: of images and of their labels."""
    if not (target / yaml).is_file():
        return ()  # the source reports it
    content = yolo_yaml.read(target / yaml)
    folders: dict[bool, set[str]] = {True: set(), False: set()}
    for key, entries in content.splits.items():
        for entry in entries:
            labels = os.path.dirname(yolo_labels.label_file(os.path.join(entry, "x.jpg")))
            folders[key in yolo_yaml.KEYS[split]] |= {f"{os.path.relpath(each, target)}/" for each in (entry, labels)}
    needed = folders[True]
    return tuple(each for each in folders[False] if not any(each.startswith(n) or n.startswith(each) for n in needed))


def _is_of_split(name: str, wanted: str) -> bool:
    """True unless this is a file of records of a split that `wanted`, such as "train[:80%]", does not name."""
    found = _RECORDS.fullmatch(name)
    return not found or wanted == "all" or found["split"] in re.findall(r"[\w.]+", wanted)
