"""Measures how costs grow with batch, boxes, anchors, classes and images:

python -m benchmarks.scaling [--rounds=5] [--threads=2] [--only=NAME]

Varies one quantity at a time, with its sizes in interleaved rounds. The slope is that of log(time) over log(size) by
least squares; 1 means linear growth. Ends with COCO evaluation of 5,000 images with 100 detections each.
"""

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from benchmarks.assignment import random_case
from benchmarks.turns import slope, take_turns, use_cores
from configs import base
from yolox_jax.cli import from_config
from yolox_jax.data.prefetch import ReadConfig
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.detection import losses
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.detection.postprocess import detect
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.evaluation import coco_ap
from yolox_jax.training.host_memory import keep_freed_memory

_BATCH, _BOXES, _SIZE, _CLASSES, _CANDIDATES = 8, 60, 640, 80, 2000  # the quantities that do not vary
_NUM_SAMPLES = 64  # per measurement of the data pipeline


def _program(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    on_device = jax.device_put(arguments)
    compiled = jax.jit(function).lower(*on_device).compile()
    return lambda: jax.block_until_ready(compiled(*on_device))


def assignment(
    batch: int = _BATCH, boxes: int = _BOXES, size: int = _SIZE, classes: int = _CLASSES
) -> Callable[[], Any]:
    """Prepares SimOTA of a batch whose ground-truth slots are all full."""
    predictions, truth, labels = random_case(size, boxes, batch, classes)
    assign = jax.vmap(functools.partial(losses.assign, config=SimOtaConfig()), in_axes=(0, None, 0, 0, 0))
    return _program(assign, predictions, make_anchors((size, size)), truth, labels, np.ones(labels.shape, bool))


def nms(
    batch: int = _BATCH, size: int = _SIZE, classes: int = _CLASSES, candidates: int = _CANDIDATES
) -> Callable[[], Any]:
    """Prepares decoding, scores, selection of candidates and NMS."""
    run = functools.partial(detect, conf=0.001, iou=0.65, max_detections=100, num_candidates=candidates)
    return _program(run, random_case(size, 1, batch, classes)[0], make_anchors((size, size)))


def evaluation(images: int = 500, classes: int = _CLASSES, found: int = 100) -> Callable[[], Any]:
    """Prepares COCO AP of images with seven boxes and `found` detections each, some of them correct."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image in range(images):
        xywh = rng.uniform([0, 0, 8, 8], [400, 400, 200, 200], (found, 4))
        labels = rng.integers(0, classes, found)
        for i in range(7):
            annotations.append(
                {"id": len(annotations), "image_id": image, "category_id": int(labels[i]), "bbox": xywh[i].tolist()}
            )
        moved = xywh + rng.normal(0, 4, xywh.shape)
        detections += [
            {"image_id": image, "category_id": int(label), "bbox": bbox, "score": score}
            for label, bbox, score in zip(labels, moved.tolist(), rng.random(found).tolist(), strict=True)
        ]
    truth = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": i, "name": str(i)} for i in range(classes)],
        "annotations": annotations,
    }
    return lambda: coco_ap.compute_ap(truth, detections)


def pipeline(images: int = 1000, size: int = 320, batch: int = 8) -> Callable[[], Any]:
    """Prepares runs of a new loader with mosaic and mixup, each of the same number of samples for every batch size."""
    config, source = base.get_config(), ShapesSource(images, 0)
    config.batch_size = batch
    batches = from_config.loader_config(config, (size, size), from_config.schedule(config, images))
    read = ReadConfig(threads=1, workers=0, prefetch=1, cache_bytes=config.data.cache_mb << 20)

    def run() -> None:
        with TrainLoader(source, batches, _NUM_SAMPLES // batch, read=read) as loader:
            for _ in loader:
                pass

    return run


_ROWS: tuple[tuple[str, str, Callable[..., Callable[[], Any]], str, tuple[int, ...]], ...] = (
    ("assignment", "B images", assignment, "batch", (2, 4, 8, 16)),
    ("assignment", "G boxes", assignment, "boxes", (15, 30, 60, 120, 240)),
    ("assignment", "A anchors (size)", assignment, "size", (320, 448, 640, 896, 1280)),
    ("assignment", "C classes", assignment, "classes", (20, 80, 320)),
    ("NMS", "B images", nms, "batch", (2, 4, 8, 16)),
    ("NMS", "A anchors (size)", nms, "size", (320, 448, 640, 896, 1280)),
    ("NMS", "C classes", nms, "classes", (20, 80, 320)),
    ("NMS", "N candidates", nms, "candidates", (500, 1000, 2000, 4000)),
    ("COCO AP", "N images", evaluation, "images", (250, 500, 1000, 2000)),
    ("COCO AP", "D detections per image", evaluation, "found", (25, 50, 100)),
    ("COCO AP", "C classes", evaluation, "classes", (20, 80, 320)),
    ("data pipeline", "N images in the set", pipeline, "images", (100, 1000, 10000, 100000)),
    ("data pipeline", "B images per batch", pipeline, "batch", (2, 4, 8, 16)),
    ("data pipeline", "pixels (size)", pipeline, "size", (224, 320, 448, 640)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="measures only rows whose name begins with this")
    arguments = machine.parse_quiet(parser)
    use_cores(arguments.threads)
    keep_freed_memory()
    fixed = f"B={_BATCH} G={_BOXES} {_SIZE}x{_SIZE} C={_CLASSES}"
    print(f"{arguments.threads} threads; medians of {arguments.rounds} rounds; {fixed}")
    for name, group in itertools.groupby(_ROWS, key=lambda row: row[0]):
        if not name.startswith(arguments.only):
            continue
        for _, quantity, make, keyword, sizes in group:
            times = take_turns({str(n): make(**{keyword: n}) for n in sizes}, arguments.rounds)
            medians = [statistics.median(times[str(n)]) for n in sizes]
            # Anchors and pixels grow as the square of the side.
            growing = [n * n if keyword == "size" else n for n in sizes]
            shown = "  ".join(f"{n}: {1000 * t:.1f}" for n, t in zip(sizes, medians, strict=True))
            print(f"{name:<14} {quantity:<22} slope {slope(growing, medians):5.2f}   ms at {shown}", flush=True)
    compute_ap = evaluation(5000)
    start = time.perf_counter()
    compute_ap()
    print(f"COCO AP of 5,000 images with 100 detections each: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
