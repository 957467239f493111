"""A network on a whole split: predict on all devices, map back to the images, count AP."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax.augment import multiscale
from yolox_jax.data.eval_pipeline import eval_loader
from yolox_jax.data.example import Source
from yolox_jax.data.geometry import PAD_VALUE
from yolox_jax.detection import views
from yolox_jax.detection.anchors import STRIDES, make_anchors
from yolox_jax.detection.postprocess import DEFAULT_NUM_CANDIDATES, detect
from yolox_jax.evaluation import coco_ap
from yolox_jax.models.yolox import YOLOX
from yolox_jax.types import Anchors, Detections, Predictions

# Scale and whether mirrored. The scales are n/32, so that a multiple of 32 becomes a whole number of pixels.
_TTA_VIEWS = ((1.0, False), (1.0, True), (27 / 32, True), (40 / 32, False))
_PREFETCH = 2  # batches read ahead: enough to keep a device busy, little memory at 640 pixels

Predict = Callable[[Any, Any], Detections]


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How detections are made for counting AP; the defaults are the reference's."""

    conf: float = 0.001
    iou: float = 0.65
    max_detections: int = 1000
    num_candidates: int = DEFAULT_NUM_CANDIDATES
    multi_label: bool = False  # every class of a box that scores conf, not its best one only
    tta: bool = False  # the image mirrored, smaller and larger too: four times the work


@dataclasses.dataclass(frozen=True)
class EvalResult:
    """What an evaluation found."""

    ap: coco_ap.ApResult
    detections: list[dict[str, Any]]  # COCO form, in each image's own pixels
    num_images: int
    images_per_second: float | None  # padding counted, the first batch, which compiles, not; None of one batch alone

    def write(self, path: Path) -> None:
        """results.json: the twelve numbers, each class, and how many images how fast."""
        content = {**self.ap.as_dict(), "num_images": self.num_images, "images_per_second": self.images_per_second}
        path.write_text(json.dumps(content, indent=2) + "\n")


def predict_images(model: YOLOX, variables: Any, images_BHW3: jax.Array, config: EvalConfig) -> Detections:
    """The detections of images [B, H, W, 3] uint8 BGR, in their pixels."""
    chosen = _TTA_VIEWS if config.tta else _TTA_VIEWS[:1]
    seen = [_predict_view(model, variables, images_BHW3.astype(jnp.float32), *view) for view in chosen]
    predictions, anchors = views.join(seen)
    how = (config.conf, config.iou, config.max_detections, config.num_candidates, config.multi_label)
    return detect(predictions, anchors, *how)


def _predict_view(
    model: YOLOX, variables: Any, images_BHW3: jax.Array, scale: float, mirrored: bool
) -> tuple[Predictions, Anchors]:
    """Raw predictions and anchors, as of the images themselves, of what the network sees at a scale or in a mirror."""
    height, width = images_BHW3.shape[1:3]
    seen_BHW3 = images_BHW3[:, :, ::-1] if mirrored else images_BHW3
    if scale != 1:
        scaled_hw = round(height * scale), round(width * scale)
        seen_BHW3, _ = multiscale.resize(seen_BHW3, jnp.zeros((seen_BHW3.shape[0], 0, 4)), scaled_hw)
        fill = [(0, -side % STRIDES[-1]) for side in scaled_hw]
        seen_BHW3 = jnp.pad(seen_BHW3, ((0, 0), *fill, (0, 0)), constant_values=PAD_VALUE)
    predictions = cast(Predictions, model.apply(variables, seen_BHW3, train=False))
    anchors = views.unscale(make_anchors(seen_BHW3.shape[1:3]), scale)
    return views.unmirror(predictions, anchors, width) if mirrored else (predictions, anchors)


def make_predict(model: YOLOX, mesh: Mesh, config: EvalConfig) -> Predict:
    """The compiled function of (variables, images [B, H, W, 3] uint8) to Detections: images divided over the mesh."""

    def predict(variables: Any, images_BHW3: jax.Array) -> Detections:
        return predict_images(model, variables, images_BHW3, config)

    axis = mesh.axis_names[0]
    # Mapped, not partitioned: each device runs NMS on its own images until those are done.
    mapped = jax.shard_map(predict, mesh=mesh, in_specs=(P(), P(axis)), out_specs=P(axis), check_vma=False)
    divided = NamedSharding(mesh, P(axis))
    return jax.jit(mapped, in_shardings=(NamedSharding(mesh, P()), divided), out_shardings=divided)


def evaluate(
    predict: Predict,
    variables: Any,
    source: Source,
    *,
    size_hw: tuple[int, int],
    batch_size: int,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> EvalResult:
    """Detects in every image of the source once and counts AP.

    Args:
      predict: from `make_predict`.
      variables: {"params", "batch_stats"}: the averaged ones in training.
      source: with boxes.
      size_hw: the input size; images are letterboxed as in the reference.
      batch_size: images at a time, a multiple of the number of devices; the last batch is padded.
      threads: that read images.
      progress: called with the number of images done and to do.
    """
    ground_truth = source.ground_truth()
    category_ids = [category["id"] for category in ground_truth["categories"]]
    detections: list[dict[str, Any]] = []
    num_done, num_batches, start = 0, 0, 0.0
    for batch in eval_loader(source, size_hw=size_hw, batch=batch_size, threads=threads, prefetch=_PREFETCH):
        found = jax.device_get(predict(variables, batch.images))
        image_ids = [source.image_id(int(index)) for index in batch.indices]
        kept = found.mask & batch.mask[:, None]
        detections += coco_ap.to_coco(
            found.boxes, found.scores, found.labels, kept, batch.ratios, image_ids, category_ids
        )
        if num_batches == 0:
            start = time.perf_counter()
        num_batches += 1
        num_done += int(np.sum(batch.mask))
        if progress is not None:
            progress(num_done, len(source))
    seconds = time.perf_counter() - start
    return EvalResult(
        ap=coco_ap.evaluate(ground_truth, detections),
        detections=detections,
        num_images=num_done,
        images_per_second=(num_batches - 1) * batch_size / seconds if num_batches > 1 else None,
    )
