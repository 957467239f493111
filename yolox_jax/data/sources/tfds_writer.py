"""Writes sources as a data set of TensorFlow Datasets (tfds), without importing TensorFlow."""

import collections
import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import cv2
import numpy as np

from yolox_jax.boxes import xywh_to_xyxy, xyxy_to_norm_yxyx
from yolox_jax.data import images
from yolox_jax.data.images import ImageError, SizeError
from yolox_jax.data.prefetch import Shard
from yolox_jax.data.quiet_grain import grain
from yolox_jax.data.sources.problems import logger
from yolox_jax.data.sources.tfds_files import import_tfds
from yolox_jax.errors import UserError, writing
from yolox_jax.locks import locked
from yolox_jax.types import Source

# Gives every process the content of each, by its number, once all have called it.
Exchange = Callable[[bytes], Sequence[bytes]]

_VERSION = "1.0.0"
_JPEG_QUALITY = 95  # of images that are scaled down
_IMAGES_PER_FILE = 1000  # 160 MB for COCO
_PREFETCHED = 8  # images per thread, so that a slow one does not stop the others


def write(
    splits: Mapping[str, Source],
    folder: Path,
    name: str,
    *,
    max_side: int | None = None,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
    shard: Shard = Shard(),
    exchange: Exchange = lambda content: [content],
) -> tuple[Path, dict[str, int]]:
    """Writes the splits, in the sources' order, to folder/name/1.0.0, with the features of tfds' coco/2017.

    Several processes, each with its `shard` and an `exchange` between them, write the files that one process writes,
    with the same records (if images are left out, some files are shorter). They see the same folder, and all return the
    same.

    An image keeps the bytes of its file, with three exceptions: if a side is longer than `max_side`, it is scaled down
    and becomes a JPEG; if its boxes fit only without its EXIF rotation, or if it has no file, it becomes a PNG. Boxes
    are clipped, since tfds allows no others. Crowds are those of the ground truth, except that in "train" an image has
    none if the source learns all its boxes (as it does VOC's difficult ones). Images that cannot be read are logged and
    left out.

    Returns:
      The data set's folder, and the number of images written of each split.

    Raises:
      UserError: the data set exists already, another run is writing it, no image of a split can be read, or the folder
        cannot be written. After any error nothing is left behind; only a run that was killed leaves
        "1.0.0.unfinished", which the next run removes.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"{name!r} cannot name a tfds data set", "give lower-case letters, digits and _")
    if max_side is not None and max_side < 1:
        raise UserError(f"max_side is {max_side}", "give a number of pixels, or leave it out to keep the images")
    tfds = import_tfds()
    class_names = next(iter(splits.values())).class_names
    _check_names(class_names)
    ids_are_text = any(
        isinstance(id, str) for source in splits.values() for id in map(source.image_id, range(len(source)))
    )
    features = _features(tfds, class_names, ids_are_text)
    shares = {split: _share(len(source), shard) for split, source in splits.items()}
    num_all = sum(map(len, shares.values()))
    num_read = 0

    def records(split: str) -> Iterator[dict[str, Any]]:
        nonlocal num_read
        read = _ReadRecord(splits[split], ids_are_text, max_side, is_learned=split == "train")
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads * _PREFETCHED)
        for record in grain.MapDataset.source(shares[split]).map(read).to_iter_dataset(options):
            num_read += 1
            if isinstance(record, ImageError | SizeError):
                logger.warning("%s, so it is left out: %s", record.what, record.advice)
            else:
                yield record
            if progress is not None:
                progress(num_read, num_all)

    target = folder / name / _VERSION
    with _appearing(target) if shard.process_index == 0 else contextlib.nullcontext(_unfinished(target)) as unfinished:
        exchange(b"")  # the folder is there now
        info = _describe(tfds, name, features, unfinished / _part(shard.process_index))
        writer = tfds.core.SequentialWriter(info, _IMAGES_PER_FILE, file_format="array_record")
        writer.initialize_splits(list(splits))
        for split in splits:
            writer.add_examples({split: records(split)})  # a generator, so that only a few records are in memory
        writer.close_all()
        own = {split: [info.splits[split].shard_lengths, info.splits[split].num_bytes] for split in splits}
        parts = [json.loads(part) for part in exchange(json.dumps(own).encode())]
        num_written = {split: sum(sum(part[split][0]) for part in parts) for split in splits}
        for split, source in splits.items():
            if not num_written[split]:
                raise UserError(f"none of the {len(source)} images of {split} can be read", "check their folder")
        if shard.process_index == 0:
            _join(tfds, _describe(tfds, name, features, unfinished), list(splits), parts)
    exchange(b"")  # the data set is there now
    return target, num_written


def _share(num_images: int, shard: Shard) -> range:
    """The images that a process writes: those of whole files."""
    num_files = -(-num_images // _IMAGES_PER_FILE)
    first, end = (
        num_files * i // shard.process_count * _IMAGES_PER_FILE for i in (shard.process_index, shard.process_index + 1)
    )
    return range(first, min(end, num_images))


def _part(process_index: int) -> str:
    return f"part{process_index}"


def _describe(tfds: ModuleType, name: str, features: Any, folder: Path) -> Any:
    """Returns tfds' description of a data set in `folder`, which it makes."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = tfds.core.dataset_info.DatasetIdentity(name, tfds.core.Version(_VERSION), str(folder), __name__)
    return tfds.core.DatasetInfo(builder=identity, features=features, description="Written by yolox_jax.")


def _join(tfds: ModuleType, info: Any, splits: Sequence[str], parts: Sequence[dict[str, Any]]) -> None:
    """Makes one data set of the parts: moves their files into its folder, and describes them."""
    folder = Path(info.data_dir)
    infos = []
    for split in splits:
        # As tfds' SequentialWriter names its files.
        template = tfds.core.ShardedFileTemplate(
            folder, "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}", info.name, split, "array_record"
        )
        lengths: list[int] = []
        for index, part in enumerate(parts):
            of_part = template.replace(data_dir=folder / _part(index))
            for number in range(len(part[split][0])):
                file = of_part.sharded_filepath(shard_index=number, num_shards=None)
                os.rename(file, template.sharded_filepath(shard_index=len(lengths) + number, num_shards=None))
            lengths += part[split][0]
        num_bytes = sum(part[split][1] for part in parts)
        infos.append(tfds.core.SplitInfo(split, lengths, num_bytes, template))
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(folder)
    for index in range(len(parts)):
        shutil.rmtree(folder / _part(index))


class _ReadRecord:
    """Makes the record of the image at an index; returns the error if the image cannot be read."""

    def __init__(self, source: Source, id_is_text: bool, max_side: int | None, is_learned: bool):
        truth = source.ground_truth()
        self._source = source
        self._id_is_text = id_is_text
        self._max_side = max_side
        self._is_learned = is_learned
        self._label_of = {category["id"]: label for label, category in enumerate(truth["categories"])}
        self._listed = {image["id"]: image for image in truth["images"]}
        self._annotations = collections.defaultdict(list)
        for annotation in truth["annotations"]:
            self._annotations[annotation["image_id"]].append(annotation)

    def __call__(self, index: int) -> dict[str, Any] | ImageError | SizeError:
        id = self._source.image_id(index)
        try:
            data, size_hw, shrink = self._encoded(index, self._listed[id])
        except (ImageError, SizeError) as error:
            return error
        annotations = self._annotations.get(id, [])
        learns_all = self._is_learned and self._source.num_boxes(index) == len(annotations)
        return {
            "image": data,
            "image/filename": os.path.basename(self._listed[id]["file_name"]),
            "image/id": str(id) if self._id_is_text else id,
            "objects": [
                {
                    "area": annotation["area"] * shrink,
                    "bbox": np.clip(
                        xyxy_to_norm_yxyx(xywh_to_xyxy(np.array(annotation["bbox"], np.float64)), size_hw), 0, 1
                    ),
                    "id": annotation["id"],
                    "is_crowd": bool(annotation["iscrowd"]) and not learns_all,
                    "label": self._label_of[annotation["category_id"]],
                }
                for annotation in annotations
            ],
        }

    def _encoded(self, index: int, listed: dict[str, Any]) -> tuple[bytes, tuple[int, int], float]:
        """Returns the bytes to write, the size [h, w] that the boxes refer to, and the factor that scales areas."""
        data = self._source.encoded(index)
        pixels = None if data is None else images.decode(data, listed["file_name"])
        if data is None or pixels is None or pixels.shape[:2] != (listed["height"], listed["width"]):
            seen = self._source[index].image
            if data is None or pixels is None or pixels.shape != seen.shape:
                data, pixels = cv2.imencode(".png", seen)[1].tobytes(), seen
        height, width = pixels.shape[:2]
        if self._max_side is None or max(height, width) <= self._max_side:
            return data, (height, width), 1.0
        ratio = self._max_side / max(height, width)
        small_wh = max(1, round(width * ratio)), max(1, round(height * ratio))
        pixels = cv2.resize(pixels, small_wh, interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
        return data, (height, width), small_wh[0] * small_wh[1] / (width * height)


def _features(tfds: ModuleType, class_names: tuple[str, ...], ids_are_text: bool) -> Any:
    """Returns the features of tfds' coco/2017, except that areas are not truncated to whole numbers."""
    objects = {
        "area": np.float32,
        "bbox": tfds.features.BBoxFeature(),
        "id": np.int64,
        "is_crowd": np.bool_,
        "label": tfds.features.ClassLabel(names=list(class_names)),
    }
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "image/id": tfds.features.Text() if ids_are_text else np.int64,
            "objects": tfds.features.Sequence(objects),
        }
    )


def _check_names(class_names: tuple[str, ...]) -> None:
    """Checks that the class names survive tfds, which stores them as the lines of a file and strips them."""
    unfit = [name for name in class_names if not name or name != name.strip() or len(name.splitlines()) > 1]
    unfit += [name for name, count in collections.Counter(class_names).items() if count > 1]
    if unfit:
        raise UserError(
            f"tfds cannot keep the class name {unfit[0]!r}",
            "give each class a different name, without line breaks or spaces around it",
        )


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.unfinished")


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yields a folder to write into, which is renamed to `folder` at the end, or removed after an error."""
    unfinished = _unfinished(folder)

    def refuse() -> NoReturn:
        raise UserError(f"another run is writing into {folder.parent}", "wait for it, or stop it")

    with contextlib.ExitStack() as held:
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder.parent.with_name(f".{folder.parent.name}.lock"), on_busy=refuse))
        if folder.exists():
            raise UserError(f"{folder} exists already", "remove it, or give another --output or --name")
        shutil.rmtree(unfinished, ignore_errors=True)  # left by a run that was killed
        try:
            with writing(folder):
                unfinished.mkdir()
                yield unfinished
                unfinished.rename(folder)
        except BaseException:  # Ctrl-C too
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
