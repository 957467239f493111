"""Measures exported files, each in its own runtime: size, milliseconds for an image, and AP, as a Markdown table.

python -m benchmarks.exported --weights=yolox_nano --calibrate=photos [--annotations=val.json --images=val]
python -m benchmarks.exported --model=s --calibrate=photos

The files are StableHLO, ONNX and LiteRT, and INT8 of the last two, as tools.export writes them without a certificate. A
call takes a letterboxed image and returns boxes after NMS; the files take turns, with the threads of their defaults.
With --model the weights are random, so there is no AP.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.inference import open_weights
from yolox_jax.augment.geometry import letterbox
from yolox_jax.data import images
from yolox_jax.data.sources.class_names import difference
from yolox_jax.data.sources.coco import CocoSource
from yolox_jax.evaluation.exported import Evaluation, measure
from yolox_jax.inference import pretrained
from yolox_jax.inference.export.formats import ExportConfig, check_int8_packages
from yolox_jax.inference.export.int8 import MOST_IMAGES, make_plan
from yolox_jax.inference.export.official_network import folded_tensors
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.inference.pretrained import DETECTOR_CONFIG, Pretrained
from yolox_jax.models import yolox
from yolox_jax.weights.coco_names import COCO_NAMES


def _random(name: str, calibrate: Path) -> Pretrained:
    size = 416 if name in ("nano", "tiny") else 640
    variables = open_weights(name, None, _read(calibrate, (size, size), 1))
    return Pretrained(name, yolox.create(name), variables, COCO_NAMES, (size, size))


def _read(folder: Path, size_hw: tuple[int, int], most: int) -> np.ndarray:
    """Reads the folder's first images, letterboxed, whatever other files it has."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in images.SUFFIXES]
    if not paths:
        raise SystemExit(f"--calibrate={folder} has no images: give a folder with some")
    return np.stack([letterbox(images.read(path), size_hw)[0] for path in paths[:most]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--weights", help="a run, a file or a name such as yolox_nano")
    what.add_argument("--model", help="a network with random weights: nano, s …")
    parser.add_argument("--calibrate", type=Path, required=True, help="a folder of images for INT8")
    parser.add_argument("--annotations", type=Path, help="a COCO json, for AP")
    parser.add_argument("--images", type=Path, help="the folder of its images")
    arguments = machine.parse_quiet(parser)
    if (arguments.annotations is None) != (arguments.images is None):
        parser.error("--annotations and --images go together")
    for form in ("onnx", "litert"):
        check_int8_packages(form)
    loaded = pretrained.load(arguments.weights, "float32") if arguments.weights else None
    loaded = loaded or _random(arguments.model, arguments.calibrate)
    evaluation = None
    if arguments.annotations:
        source = CocoSource(arguments.annotations, arguments.images, "val")
        if source.class_names != loaded.class_names:
            how = difference(loaded.class_names, source.class_names, "weights", "annotations")
            parser.error(f"the classes of weights and annotations differ ({how})")
        evaluation = Evaluation(source, DetectConfig())
    images_BHW3 = _read(arguments.calibrate, loaded.size_hw, MOST_IMAGES)
    plan = make_plan(folded_tensors(loaded), images_BHW3)
    config = ExportConfig(loaded.size_hw, 1, DETECTOR_CONFIG)
    int8 = dataclasses.replace(config, int8=plan)
    files = {
        "StableHLO": ("stablehlo", config),
        "ONNX": ("onnx", config),
        "ONNX, INT8": ("onnx", int8),
        "LiteRT": ("litert", config),
        "LiteRT, INT8": ("litert", int8),
    }
    with tempfile.TemporaryDirectory() as folder:
        found = measure(files, loaded, images_BHW3[0], evaluation, Path(folder))
    in_float = ", ".join(plan.float_blocks) or "no block"
    print(f"{loaded.describe(loaded.size_hw)}; in float32 in the INT8 files: {in_float}")
    print("\n| file | MB | ms | AP |\n|---|---|---|---|")
    for name, each in found.items():
        ap = "" if each.ap is None else f"{each.ap:.4f}"
        print(f"| {name} | {each.megabytes:.2f} | {each.milliseconds:.1f} | {ap} |")


if __name__ == "__main__":
    main()
