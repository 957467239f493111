"""Makes the arrays of tests/golden with the official PyTorch YOLOX: python -m tests.golden.make_golden CHECKOUT

CHECKOUT is a clone of the official repository. Needs PyTorch and the packages that the official code imports (loguru,
tabulate, psutil, pycocotools); the tests need none of these. Every input is drawn from a generator seeded by a name,
except in augment_mixup.npz and voc_ap.json: their inputs are read from the file in tests/golden, and only the official
results are computed again. Prints the difference of each new file from the one in tests/golden.
"""

import argparse
import contextlib
import io
import json
import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tests.golden import image_arrays, network_arrays
from tests.golden.official_yolox import Official
from tests.material import GOLDEN, golden


def make_voc_ap(official: Official) -> dict[str, Any]:
    """Runs voc_eval.py on the boxes and detections of voc_ap.json, written as the files of a VOC devkit."""
    case = json.loads((GOLDEN / "voc_ap.json").read_text())
    name_of = {category["id"]: category["name"] for category in case["categories"]}
    answer: dict[str, dict[str, list[float]]] = {"ap07": {}, "ap12": {}}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        root = Path(folder)
        _write_devkit(case, name_of, root)
        for name in name_of.values():
            for metric, use_07_metric in (("ap07", True), ("ap12", False)):
                answer[metric][name] = [
                    official.voc_eval(
                        *(f"{root}/{{}}.txt", f"{root}/{{}}.xml", f"{root}/images.txt", name, f"{root}/cache"),
                        ovthresh=threshold,
                        use_07_metric=use_07_metric,
                    )[2]
                    for threshold in np.linspace(0.5, 0.95, 10)
                ]
    return {"voc_ap.json": case | answer}


def _write_devkit(case: dict[str, Any], name_of: dict[int, str], root: Path) -> None:
    """Writes annotations and detections in VOC's pixels, which count from 1 and are inclusive."""
    (root / "images.txt").write_text("".join(f"{image['id']}\n" for image in case["images"]))
    for image in case["images"]:
        annotation = ElementTree.Element("annotation")
        for box in case["annotations"]:
            if box["image_id"] == image["id"]:
                fields = {"name": name_of[box["category_id"]], "pose": "", "truncated": "0"}
                thing = ElementTree.SubElement(annotation, "object")
                for field, text in (fields | {"difficult": str(box["iscrowd"])}).items():
                    ElementTree.SubElement(thing, field).text = text
                corners = ElementTree.SubElement(thing, "bndbox")
                for field, value in zip(("xmin", "ymin", "xmax", "ymax"), _voc_corners(box["bbox"]), strict=True):
                    ElementTree.SubElement(corners, field).text = str(value)
        ElementTree.ElementTree(annotation).write(root / f"{image['id']}.xml")
    for category, name in name_of.items():
        found = [each for each in case["detections"] if each["category_id"] == category]
        lines = [
            f"{each['image_id']} {each['score']!r} {' '.join(map(repr, _voc_corners(each['bbox'])))}" for each in found
        ]
        (root / f"{name}.txt").write_text("\n".join(lines))


def _voc_corners(xywh: list[float]) -> tuple[float, ...]:
    x, y, width, height = xywh
    return x + 1, y + 1, x + width, y + height


_MAKERS: tuple[Callable[[Official], dict[str, Any]], ...] = (
    network_arrays.make_models,
    network_arrays.make_assign,
    network_arrays.make_losses,
    network_arrays.make_trajectory,
    network_arrays.make_schedule,
    image_arrays.make_mosaic,
    image_arrays.make_mixup,
    image_arrays.make_letterbox,
    image_arrays.make_device,
    make_voc_ap,
)


def largest_difference(new: Any, kept: Any) -> float:
    """The largest difference of two nested contents, relative to the largest number of its array.

    Infinite if keys, shapes or types differ.
    """
    if isinstance(new, dict) or isinstance(kept, dict):
        if new.keys() != kept.keys():
            return math.inf
        return max((largest_difference(new[key], kept[key]) for key in new), default=0.0)
    one, other = np.asarray(new), np.asarray(kept)
    if one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    if one.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(one, other) else math.inf
    scale = np.abs(other.astype(np.float64)).max(initial=0.0) or 1.0
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0.0) / scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a clone of the official YOLOX")
    parser.add_argument(
        "--output", type=Path, default=GOLDEN, help="where the files are written; tests/golden by default"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    official = Official(arguments.checkout)
    for maker in _MAKERS:
        for name, content in maker(official).items():
            is_json = name.endswith(".json")
            kept = json.loads((GOLDEN / name).read_text()) if is_json else golden(name.removesuffix(".npz"))
            print(f"{name}: largest relative difference {largest_difference(content, kept):.1e}", flush=True)
            if is_json:
                (arguments.output / name).write_text(json.dumps(content))
            else:
                np.savez_compressed(arguments.output / name, **content)


if __name__ == "__main__":
    main()
