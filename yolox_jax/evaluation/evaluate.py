"""Evaluates a network on a whole split: detects on all devices, maps boxes back to each image, computes AP."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from yolox_jax import storage
from yolox_jax.data.eval_loader import EvalBatch, eval_loader
from yolox_jax.data.prefetch import Shard
from yolox_jax.data.tiling import Tiling
from yolox_jax.errors import UserError
from yolox_jax.evaluation import coco_ap, voc_ap
from yolox_jax.evaluation.ap_result import ApResult
from yolox_jax.inference.predict import Predict
from yolox_jax.mesh import replicate, shard_batch
from yolox_jax.types import Source, Tiles

_PREFETCH = 2  # batches: enough to keep a device busy, little memory at 640 pixels

_METRICS = {"coco": coco_ap.compute_ap, "voc": voc_ap.compute_ap}


@dataclasses.dataclass(frozen=True, repr=False)
class EvalResult:
    """AP, detections and speed of one evaluation."""

    ap: ApResult
    detections: list[dict[str, Any]]  # COCO's result format, in the pixels of each image
    num_images: int
    # Without the first batch, which compiles; padding images count. None if there was only one batch.
    images_per_second: float | None

    def __repr__(self) -> str:  # without the detections, which may be a million
        stats = self.ap.stats
        return f"EvalResult(AP {stats['AP']:.4f}, AP50 {stats['AP50']:.4f}, {self.num_images} images)"

    def write(self, path: Path, about: Mapping[str, str] | None = None) -> None:
        """Writes results.json: the metric's numbers, each class, the number of images and the speed, and `about`."""
        content = {**self.ap.as_dict(), "num_images": self.num_images, "images_per_second": self.images_per_second}
        content |= about or {}
        storage.write_bytes(path, f"{json.dumps(content, indent=2)}\n".encode())


def check_metric(metric: str) -> str:
    """Returns the metric; raises UserError if `evaluate` does not know it."""
    if metric not in _METRICS:
        raise UserError(f"config.eval.metric is {metric!r}", f"choose one of {', '.join(_METRICS)}")
    return metric


def evaluate(
    predict: Predict,
    variables: Any,
    source: Source,
    *,
    size_hw: tuple[int, int],
    batch_size: int,
    mesh: Mesh | None = None,
    metric: str = "coco",
    threads: int = 2,
    tiling: Tiling | None = None,
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[str], object] = lambda text: None,
) -> EvalResult:
    """Detects in every image of the source once and computes AP.

    Several processes share the images, and each returns the whole result.

    Args:
      predict: from `make_predict`.
      variables: of the network, best with BatchNorm folded (models/folding.py); the EMA weights in training.
      source: images with ground-truth boxes.
      size_hw: input size; images are letterboxed as in the reference.
      batch_size: images per batch over all devices, a multiple of their number; the last batch is padded.
      mesh: the mesh of `predict`, required with several processes.
      metric: "coco", or "voc" for mAP07 and mAP12.
      threads: threads per process that read images.
      tiling: how images are cut; the same as that of `predict`.
      progress: called with the number of images done and the number of all images.
      log: called with a message before each number of tiles that compiles another program, and with a warning if tiles
        are larger than asked for.
    """
    (result,) = evaluate_runs(
        predict,
        variables,
        source,
        num_runs=1,
        size_hw=size_hw,
        batch_size=batch_size,
        mesh=mesh,
        metric=metric,
        threads=threads,
        tiling=tiling,
        progress=progress,
        log=log,
    )
    return result


def evaluate_runs(
    predict: Predict,
    variables: Any,
    source: Source,
    num_runs: int,
    *,
    size_hw: tuple[int, int],
    batch_size: int,
    mesh: Mesh | None,
    metric: str,
    threads: int,
    tiling: Tiling | None = None,
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[str], object] = lambda text: None,
) -> list[EvalResult]:
    """Evaluates several runs at once, each as `evaluate` does, whose options it takes: every image is read once.

    `predict` is that of `make_predict_of_runs`, and `variables` are those of all runs.
    """
    compute_ap = _METRICS[check_metric(metric)]
    ground_truth = source.ground_truth()
    category_ids = [category["id"] for category in ground_truth["categories"]]
    shard = Shard(jax.process_index(), jax.process_count())
    batches = eval_loader(
        source,
        size_hw=size_hw,
        batch=batch_size // shard.process_count,
        shard=shard,
        threads=threads,
        prefetch=_PREFETCH,
        tiling=tiling,
    )
    detections: list[list[dict[str, Any]]] = [[] for _ in range(num_runs)]
    num_done, num_batches, start = 0, 0, 0.0
    compiled: set[int] = set()
    if tiling is not None:
        sizes = ((image["height"], image["width"]) for image in ground_truth["images"])
        if warning := next(filter(None, (tiling.warning(each, size_hw) for each in sizes)), None):
            log(warning)
    for batch in batches:
        if isinstance(batch.images, Tiles) and (num_tiles := batch.images.mask.shape[1]) not in compiled:
            log(f"compiling for up to {num_tiles} tiles at {size_hw[0]}x{size_hw[1]}, once for images of every size")
            compiled.add(num_tiles)
        found, ratio_B, mask_B, index_B = _predict_batch(predict, variables, batch, mesh)
        image_ids = [source.image_id(index) for index in index_B.tolist()]
        for run, listed in enumerate(detections):
            rows = slice(run * len(mask_B), (run + 1) * len(mask_B))
            own = jax.tree.map(lambda x, rows=rows: x[rows], found)
            mask_BD = own.mask & mask_B[:, None]
            listed += coco_ap.to_coco(own.boxes, own.scores, own.labels, mask_BD, ratio_B, image_ids, category_ids)
        if num_batches == 0:
            start = time.perf_counter()
        num_batches += 1
        num_done += int(np.sum(mask_B))
        if progress is not None:
            progress(num_done, len(source))
    seconds = time.perf_counter() - start
    speed = (num_batches - 1) * batch_size / seconds if num_batches > 1 else None
    return [EvalResult(compute_ap(ground_truth, listed), listed, num_done, speed) for listed in detections]


def _predict_batch(
    predict: Predict, variables: Any, batch: EvalBatch, mesh: Mesh | None
) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Returns Detections (of numpy arrays), ratios, mask and source indices for the rows of all processes."""
    rows = (batch.ratios, batch.mask, batch.indices.astype(np.int32))
    images = batch.images
    if mesh is not None and jax.process_count() > 1:
        images, rows = shard_batch((images, rows), mesh)
        result = replicate((predict(variables, images), rows), mesh)
    else:
        result = predict(variables, images), rows
    found, (ratio_B, mask_B, index_B) = jax.device_get(result)
    return found, ratio_B, mask_B, index_B
