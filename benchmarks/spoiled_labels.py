"""Spoils a share of the labels of a COCO file, and judges how many of them tools/review finds again.

python -m benchmarks.spoiled_labels spoil --labels=train.json --output=spoiled.json [--share=0.05] [--seed=0]
python -m benchmarks.spoiled_labels judge --spoiled=spoiled.json --review=review/review.json [--first=50]

A third each is removed, shifted by 25 to 50 % of its sides, and given another class. `spoil` writes what it did into
the field "spoiled" of the file, which nothing else reads. A suspicion is right if it points at a spoiled label: it
names its annotation, or its new box is the removed one (IoU 0.5).
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from yolox_jax.boxes import pairwise_intersection_and_union, xywh_to_xyxy

_KINDS = ("removed", "shifted", "class")
_SHIFT = (0.25, 0.5)  # of the box's sides
_MIN_IOU = 0.5
_NEEDED = {"spoil": ("labels", "output"), "judge": ("spoiled", "review")}  # arguments by action


def spoil(truth: dict[str, Any], share: float, seed: int) -> dict[str, Any]:
    """Returns the content of a COCO file with a share of its labels spoiled, each in one of the three ways."""
    rng = np.random.default_rng(seed)
    size_of = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    categories = [category["id"] for category in truth["categories"]]
    chosen = rng.permutation(len(truth["annotations"]))[: round(share * len(truth["annotations"]))].tolist()
    kind_of = {index: _KINDS[number % len(_KINDS)] for number, index in enumerate(chosen)}
    annotations, spoiled = [], []
    for index, annotation in enumerate(truth["annotations"]):
        kind = kind_of.get(index)
        if kind is not None:
            spoiled.append(
                {"kind": kind, **{key: annotation[key] for key in ("id", "image_id", "category_id", "bbox")}}
            )
        if kind == "shifted":
            annotation = {**annotation, "bbox": _shifted(annotation["bbox"], size_of[annotation["image_id"]], rng)}
        elif kind == "class":
            others = [category for category in categories if category != annotation["category_id"]]
            annotation = {**annotation, "category_id": others[rng.integers(len(others))]}
        if kind != "removed":
            annotations.append(annotation)
    return {**truth, "annotations": annotations, "spoiled": spoiled}


def _shifted(bbox: list[float], size_xy: tuple[int, int], rng: np.random.Generator) -> list[float]:
    """Moves a box along both axes, to the other side if it would leave the image."""
    corner = []
    for start, side, whole in zip(bbox[:2], bbox[2:], size_xy, strict=True):
        move = side * rng.uniform(*_SHIFT) * rng.choice((-1, 1))
        inside = 0 <= start + move <= whole - side
        corner.append(start + (move if inside else -move))
    return [*map(float, np.clip(corner, 0, np.subtract(size_xy, bbox[2:]).clip(0))), *bbox[2:]]


def judge(spoiled: list[dict[str, Any]], suspicions: list[dict[str, Any]]) -> list[str | None]:
    """Returns the kind of the spoiled label that each suspicion finds first; None: not spoiled, or found before."""
    by_id = {each["id"]: each for each in spoiled if each["kind"] != "removed"}
    removed = [each for each in spoiled if each["kind"] == "removed"]
    found: set[int] = set()
    kinds: list[str | None] = []
    for suspicion in suspicions:
        hit = by_id.get(suspicion["annotation_id"])
        if suspicion["annotation_id"] is None:
            there = [each for each in removed if each["image_id"] == suspicion["image_id"]]
            hit = next((each for each in there if _iou(each["bbox"], suspicion["new_bbox"]) >= _MIN_IOU), None)
        kinds.append(hit["kind"] if hit and hit["id"] not in found else None)
        if hit:
            found.add(hit["id"])
    return kinds


def _iou(one: list[float], other: list[float]) -> float:
    xyxy = [xywh_to_xyxy(np.array([box], np.float64)) for box in (one, other)]
    shared, union = pairwise_intersection_and_union(*xyxy)
    return float(shared[0, 0] / union[0, 0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("spoil", "judge"))
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spoiled", type=Path)
    parser.add_argument("--review", type=Path)
    parser.add_argument("--first", type=int, default=50)
    given = parser.parse_args()
    machine.check_given(parser, given, _NEEDED)
    machine.describe()
    if given.action == "spoil":
        content = spoil(json.loads(given.labels.read_text()), given.share, given.seed)
        given.output.write_text(json.dumps(content))
        print(f"spoiled {dict(Counter(each['kind'] for each in content['spoiled']))}")
        return
    spoiled = json.loads(given.spoiled.read_text())["spoiled"]
    kinds = judge(spoiled, json.loads(given.review.read_text())["suspicions"])
    for first in (given.first, len(spoiled), len(kinds)):
        hits = [kind for kind in kinds[:first] if kind]
        print(
            f"first {min(first, len(kinds)):>4}: precision {len(hits) / max(1, len(kinds[:first])):.2f}, "
            f"recall {len(hits) / len(spoiled):.2f} {dict(Counter(hits))}"
        )


if __name__ == "__main__":
    main()
