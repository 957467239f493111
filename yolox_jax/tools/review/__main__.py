"""Finds wrong labels, and labels new images, by what a run detects:

python -m yolox_jax.tools.review --weights=RUN --config=configs/yolox_s.py [--split=train] [--output=review]
python -m yolox_jax.tools.review --config=configs/yolox_s.py --apply=ticks.json [--output=review]
python -m yolox_jax.tools.review --weights=RUN --label=DIR [--threshold=0.5] [--next=20] [--output=review]

The first writes OUTPUT/index.html, a sheet of suspicions to look through and tick, and review.json: boxes that the run
finds and the file lacks, labels that it never finds, whose class it doubts, or that it would move, the most doubtful
first. The second writes corrected.json, a COCO file in which the ticks that the sheet exported are put right. The third
writes labels.json, a COCO file of what the run finds in images without labels, and next.txt, the images that are most
worth labeling by hand: those in which several checkpoints of the run, and a mirrored view, disagree.
"""

import collections
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from absl import flags
from ml_collections import config_flags

from yolox_jax import storage
from yolox_jax.cli import from_config
from yolox_jax.cli.outputs import output_folder
from yolox_jax.cli.progress import print_progress
from yolox_jax.cli.terminal import quiet_libraries, run_program, user_errors
from yolox_jax.data import images
from yolox_jax.data.images import ImageError
from yolox_jax.errors import UserError, writing
from yolox_jax.tools.review import labeling, sheet, witnesses
from yolox_jax.tools.review.labels import Labels, corrected, index_of, read_ticks
from yolox_jax.tools.review.reviewing import review
from yolox_jax.tools.review.witnesses import Witnesses
from yolox_jax.weights.load import WHAT_WEIGHTS_ARE

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config whose labels are reviewed.", lock_config=True)
_WEIGHTS = flags.DEFINE_string("weights", None, WHAT_WEIGHTS_ARE)
_SPLIT = flags.DEFINE_enum("split", "train", ["train", "val"], "The split to review.")
_OUTPUT = flags.DEFINE_string("output", "review", "The folder of the results.")
_MOST = flags.DEFINE_integer("most", 300, "The most suspicions on the sheet.", lower_bound=1)
_CHECKPOINTS = flags.DEFINE_integer("checkpoints", 3, "How many checkpoints of the run are asked.", lower_bound=1)
_APPLY = flags.DEFINE_string("apply", None, "The ticks that the sheet exported.")
_LABEL = flags.DEFINE_string("label", None, "A folder of images without labels.")
_THRESHOLD = flags.DEFINE_float("threshold", 0.5, "label: the score threshold.", 0, 1)
_NEXT = flags.DEFINE_integer("next", 20, "label: how many images to name.", lower_bound=1)
_BATCH = 8


def _write_review(output: Path) -> None:
    config = _CONFIG.value
    source = from_config.open_source(config, _SPLIT.value)
    labels = Labels.of(config, _SPLIT.value, source)
    seen_by = witnesses.load(_weights(), _CHECKPOINTS.value, _BATCH)
    if source.class_names != seen_by.class_names:
        own, theirs = (", ".join(names[:5]) for names in (seen_by.class_names, source.class_names))
        raise UserError(
            f"{_weights()} detects other classes ({own} …) than the labels have ({theirs} …)",
            "give a run that was trained on this data set",
        )
    found = review(source, labels, seen_by, _MOST.value)
    _write_json(output / "review.json", {"weights": _weights(), "split": _SPLIT.value, "suspicions": found})
    indices = index_of(source)
    names = {category["id"]: category["name"] for category in labels.truth["categories"]}
    files = {image["id"]: str(image["file_name"]) for image in labels.truth["images"]}
    cards: list[Any] = [None] * len(found)
    for image_id in dict.fromkeys(each["image_id"] for each in found):  # each image is decoded once
        pixels = source[indices[image_id]].image
        for place, each in enumerate(found):
            if each["image_id"] == image_id:
                cards[place] = sheet.card(each, pixels, names, Path(files[image_id]).name)
    title = f"{len(found)} suspicions in {len(indices)} images"
    sheet.write(output / "index.html", title, _SPLIT.value, found, cards)
    counts = collections.Counter(each["kind"] for each in found)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"{_OUTPUT.value}/index.html: {title}{f' ({listed})' if listed else ''}; {len(seen_by)} witnesses")


def _write_corrected(output: Path) -> None:
    split = _SPLIT.value
    ticked = read_ticks(str(_APPLY.value), split)
    labels = Labels.of(_CONFIG.value, split, from_config.open_source(_CONFIG.value, split))
    path = output / "corrected.json"
    _write_json(path, corrected(labels.content, ticked))
    is_local = not storage.is_remote(str(_OUTPUT.value)) and not storage.is_remote(str(_CONFIG.value.data.root))
    how = ""
    if _CONFIG.value.data.kind == "coco" and is_local:
        how = f"; train on it with --config.data.{split}={path.absolute()}"
    print(f"{_OUTPUT.value}/corrected.json: {len(ticked)} labels corrected{how}")


def _write_labels(output: Path) -> None:
    paths = labeling.images_in(str(_LABEL.value))
    seen_by = witnesses.load(_weights(), _CHECKPOINTS.value, _BATCH)
    files, found, doubts = [], [], []
    for start, batch, unreadable in _batches(paths, seen_by):
        for error in unreadable:
            print(f"error: {error}", file=sys.stderr)
        for (path, pixels), each in zip(batch, seen_by.detect([pixels for _, pixels in batch]), strict=True):
            files.append((path.name, pixels.shape[1], pixels.shape[0]))
            found.append(each[0])
            doubts.append(labeling.disagreement(each, len(seen_by.class_names)))
        print_progress(start + len(batch) + len(unreadable), len(paths), "labeled")
    content = labeling.to_coco(seen_by.class_names, files, found, _THRESHOLD.value)
    _write_json(output / "labels.json", content)
    order = np.argsort(-np.array(doubts), kind="stable")[: _NEXT.value].tolist()
    text = "".join(f"{files[place][0]}\t{doubts[place]:.2f}\n" for place in order)
    storage.write_bytes(output / "next.txt", text.encode())
    print(f"{_OUTPUT.value}/labels.json: {len(content['annotations'])} boxes in {len(files)} images")
    print(f"{_OUTPUT.value}/next.txt: label these {len(order)} by hand first:\n{text}", end="")
    if len(files) < len(paths):
        raise UserError(f"{len(paths) - len(files)} images could not be read", "see above; the others are labeled")


def _batches(
    paths: Sequence[Path], seen_by: Witnesses
) -> Iterator[tuple[int, list[tuple[Path, np.ndarray]], list[ImageError]]]:
    for start in range(0, len(paths), seen_by.batch_size):
        read, errors = [], []
        for path in paths[start : start + seen_by.batch_size]:
            try:
                read.append((path, images.read(path, seen_by.image_config)))
            except ImageError as error:
                errors.append(error)
        yield start, read, errors


def _weights() -> str:
    if not _WEIGHTS.value:
        raise UserError("--weights is missing", "give the run to ask")
    return str(_WEIGHTS.value)


def _write_json(path: Path, content: Any) -> None:
    storage.write_bytes(path, f"{json.dumps(content, indent=1)}\n".encode())


def main() -> None:
    quiet_libraries()
    with user_errors(), output_folder(_OUTPUT.value) as output:
        if _LABEL.value is None and _CONFIG.value is None:
            raise UserError("--config is missing", "give the config of the labels, or --label=DIR to label new images")
        output = cast(Path, output)
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
        if _LABEL.value is not None:
            _write_labels(output)
        elif _APPLY.value is not None:
            _write_corrected(output)
        else:
            _write_review(output)


if __name__ == "__main__":
    run_program(main)
