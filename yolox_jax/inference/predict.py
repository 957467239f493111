"""Images to detections: the network, its test-time augmentation, decoding and NMS as one function."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax.augment import multiscale
from yolox_jax.augment.geometry import PAD_VALUE
from yolox_jax.detection import tta
from yolox_jax.detection.anchors import STRIDES, make_anchors
from yolox_jax.detection.postprocess import DEFAULT_NUM_CANDIDATES, detect
from yolox_jax.models.yolox import YOLOX
from yolox_jax.types import Anchors, Detections, Predictions

# Scale and whether mirrored. The scales are n/32, so that a multiple of 32 becomes a whole number of pixels.
_TTA_VIEWS = ((1.0, False), (1.0, True), (27 / 32, True), (40 / 32, False))

Predict = Callable[[Any, Any], Detections]


@dataclasses.dataclass(frozen=True)
class DetectConfig:
    """How detections are made for counting AP; the defaults are the reference's."""

    conf: float = 0.001
    iou: float = 0.65
    max_detections: int = 1000
    num_candidates: int = DEFAULT_NUM_CANDIDATES
    multi_label: bool = False  # every class of a box that scores conf, not its best one only
    tta: bool = False  # the image mirrored, smaller and larger too: four times the work


def predict_images(model: YOLOX, variables: Any, images_BHW3: jax.Array, config: DetectConfig) -> Detections:
    """The detections of images [B, H, W, 3] uint8 BGR, in their pixels."""
    chosen = _TTA_VIEWS if config.tta else _TTA_VIEWS[:1]
    seen = [_predict_view(model, variables, images_BHW3.astype(jnp.float32), *view) for view in chosen]
    predictions, anchors = tta.join(seen)
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
    anchors = tta.unscale(make_anchors(seen_BHW3.shape[1:3]), scale)
    return tta.unmirror(predictions, anchors, width) if mirrored else (predictions, anchors)


def make_predict(model: YOLOX, mesh: Mesh, config: DetectConfig) -> Predict:
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
