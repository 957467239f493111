"""A network on a whole split: predict on all devices, map back to the images, count AP."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from yolox_jax.data.eval_loader import eval_loader
from yolox_jax.data.prefetch import Shard
from yolox_jax.evaluation import coco_ap, voc_ap
from yolox_jax.evaluation.ap_result import ApResult
from yolox_jax.inference.predict import Predict
from yolox_jax.mesh import replicate, shard_batch
from yolox_jax.types import Source

_PREFETCH = 2  # batches read ahead: enough to keep a device busy, little memory at 640 pixels

_METRICS = {"coco": coco_ap.evaluate, "voc": voc_ap.evaluate}


@dataclasses.dataclass(frozen=True)
class EvalResult:
    """What an evaluation found."""

    ap: ApResult
    detections: list[dict[str, Any]]  # COCO form, in each image's own pixels
    num_images: int
    images_per_second: float | None  # padding counted, the first batch, which compiles, not; None of one batch alone

    def write(self, path: Path) -> None:
        """results.json: the metric's numbers, each class, and how many images how fast."""
        content = {**self.ap.as_dict(), "num_images": self.num_images, "images_per_second": self.images_per_second}
        path.write_text(json.dumps(content, indent=2) + "\n")


def check_metric(metric: str) -> str:
    """The metric; ValueError where `evaluate` knows none of that name."""
    if metric not in _METRICS:
        raise ValueError(f"config.eval.metric is {metric!r}: choose one of {', '.join(_METRICS)}")
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
    progress: Callable[[int, int], None] | None = None,
) -> EvalResult:
    """Detects in every image of the source once and counts AP. Several processes share the images; each gets the result.

    Args:
      predict: from `make_predict`.
      variables: {"params", "batch_stats"}: the averaged ones in training.
      source: with boxes.
      size_hw: the input size; images are letterboxed as in the reference.
      batch_size: images at a time over all devices, of whose number it is a multiple; the last batch is padded.
      mesh: that of `predict`, where there are several processes.
      metric: "coco", or "voc" for mAP07 and mAP12.
      threads: that read images.
      progress: called with the number of images done and to do.
    """
    check_metric(metric)
    ground_truth = source.ground_truth()
    category_ids = [category["id"] for category in ground_truth["categories"]]
    detections: list[dict[str, Any]] = []
    num_done, num_batches, start = 0, 0, 0.0
    shard = Shard(jax.process_index(), jax.process_count())
    local_batch = batch_size // shard.process_count
    for batch in eval_loader(
        source, size_hw=size_hw, batch=local_batch, shard=shard, threads=threads, prefetch=_PREFETCH
    ):
        rows = (batch.ratios, batch.mask, batch.indices.astype(np.int32))
        images = batch.images
        if mesh is not None and shard.process_count > 1:
            images, rows = shard_batch((images, rows), mesh)
            answer = replicate((predict(variables, images), rows), mesh)
        else:
            answer = predict(variables, images), rows
        found, (ratios, mask, indices) = jax.device_get(answer)
        image_ids = [source.image_id(int(index)) for index in indices]
        kept = found.mask & mask[:, None]
        detections += coco_ap.to_coco(found.boxes, found.scores, found.labels, kept, ratios, image_ids, category_ids)
        if num_batches == 0:
            start = time.perf_counter()
        num_batches += 1
        num_done += int(np.sum(mask))
        if progress is not None:
            progress(num_done, len(source))
    seconds = time.perf_counter() - start
    return EvalResult(
        ap=_METRICS[metric](ground_truth, detections),
        detections=detections,
        num_images=num_done,
        images_per_second=(num_batches - 1) * batch_size / seconds if num_batches > 1 else None,
    )
