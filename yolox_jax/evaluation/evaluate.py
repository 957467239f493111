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
from yolox_jax.data.reading import Shard
from yolox_jax.detection import views
from yolox_jax.detection.anchors import STRIDES, make_anchors
from yolox_jax.detection.postprocess import DEFAULT_NUM_CANDIDATES, detect
from yolox_jax.evaluation import coco_ap, voc_ap
from yolox_jax.evaluation.ap_result import ApResult
from yolox_jax.models.yolox import YOLOX
from yolox_jax.types import Anchors, Detections, Predictions

# Scale and whether mirrored. The scales are n/32, so that a multiple of 32 becomes a whole number of pixels.
_TTA_VIEWS = ((1.0, False), (1.0, True), (27 / 32, True), (40 / 32, False))
_PREFETCH = 2  # batches read ahead: enough to keep a device busy, little memory at 640 pixels

Predict = Callable[[Any, Any], Detections]

_METRICS = {"coco": coco_ap.evaluate, "voc": voc_ap.evaluate}


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

    ap: ApResult
    detections: list[dict[str, Any]]  # COCO form, in each image's own pixels
    num_images: int
    images_per_second: float | None  # padding counted, the first batch, which compiles, not; None of one batch alone

    def write(self, path: Path) -> None:
        """results.json: the metric's numbers, each class, and how many images how fast."""
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


def compile_predict(predict: Predict, variables: Any, size_hw: tuple[int, int], batch_size: int) -> Predict:
    """The compiled program of `make_predict`'s function for variables on its mesh and batches of this shape."""
    whole = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    images = jax.ShapeDtypeStruct((batch_size, *size_hw, 3), jnp.uint8)
    return cast(Any, predict).lower(whole, images).compile()  # a function of jax.jit


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
        images, rows = _divide((batch.images, rows), mesh)
        found, (ratios, mask, indices) = _fetch((predict(variables, images), rows), mesh)
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


def _divide(rows: Any, mesh: Mesh | None) -> Any:
    """Arrays of this process's rows as global ones; as they are where it is the only process."""
    if mesh is None or jax.process_count() == 1:
        return rows
    divided = NamedSharding(mesh, P(mesh.axis_names[0]))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(divided, x), rows)


def _fetch(arrays: Any, mesh: Mesh | None) -> Any:
    """The rows of all processes, on this host."""
    several = mesh is not None and jax.process_count() > 1
    return jax.device_get(to_every_device(arrays, cast(Mesh, mesh)) if several else arrays)


def to_every_device(arrays: Any, mesh: Mesh) -> Any:
    """A pytree that lies on the mesh, divided or not, whole on every device."""
    if all(leaf.is_fully_replicated for leaf in jax.tree.leaves(arrays)):
        return arrays
    return jax.jit(_itself, out_shardings=NamedSharding(mesh, P()))(arrays)


def _itself(arrays: Any) -> Any:  # one function, so that jit compiles it once
    return arrays
