"""A network with its weights, its classes and its input size, from whatever a user names."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from yolox_jax.detection.anchors import check_size
from yolox_jax.inference import predict
from yolox_jax.inference.coco_names import COCO_NAMES
from yolox_jax.inference.export.stablehlo import Exported
from yolox_jax.inference.predict import DetectConfig, predict_images
from yolox_jax.mesh import make_mesh, place
from yolox_jax.models import yolox
from yolox_jax.types import Detections
from yolox_jax.weights import checkpoint, official
from yolox_jax.weights.load import load_weights, read_official
from yolox_jax.weights.official import Variables

# The confidence and overlap of the reference's demo, for pictures to look at; AP is counted with DetectConfig's own.
DETECTOR_CONFIG = DetectConfig(conf=0.25, iou=0.45, max_detections=300, num_candidates=1000)
PLATFORMS = ("cpu", "cuda", "tpu")
_OFFICIAL_SIZES = {"nano": (416, 416), "tiny": (416, 416)}  # the others 640: test_size in the reference's exps


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """All that detecting needs; `model` computes in the dtype asked for, the variables are float32."""

    name: str  # a key of yolox.VARIANTS
    model: yolox.YOLOX
    variables: Variables
    class_names: tuple[str, ...]
    size_hw: tuple[int, int]  # it was trained for; other multiples of 32 work too


def load(weights: str, dtype: str = "auto") -> Pretrained:
    """Loads a run (its last checkpoint), a checkpoint, an official .pth file or a name such as yolox_s.

    A run says itself which network, classes and size it has. Of an official file, network and number of classes are
    told from its tensors; 80 classes are COCO's, others get the names class_0, class_1 …

    Raises:
      ValueError, OSError: nothing is there, or no network of this family; the message says what to do.
    """
    found = checkpoint.find(Path(weights))
    if found is not None:
        meta = checkpoint.read_meta(found)
        variables = load_weights(str(found), meta.model, meta.class_names)
        name, class_names, size_hw = meta.model, meta.class_names, check_size(meta.config["input_size"])
    else:
        state_dict = read_official(weights)
        try:
            name = official.variant_of(state_dict)
            num_classes = official.num_classes_of(state_dict) or 1  # without such a layer it is refused next
            variables = official.from_state_dict(state_dict, yolox.create(name, num_classes))
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from error
        class_names, size_hw = _names_of(num_classes), _OFFICIAL_SIZES.get(name, (640, 640))
    model = yolox.create(name, len(class_names), yolox.compute_dtype(dtype))
    return Pretrained(name, model, variables, class_names, size_hw)


def detector_config(**options: Any) -> DetectConfig:
    """DETECTOR_CONFIG with these fields; more candidates where more detections than those are asked for."""
    config = dataclasses.replace(DETECTOR_CONFIG, **options)
    return dataclasses.replace(config, num_candidates=max(config.num_candidates, config.max_detections))


def make_predict(loaded: Pretrained, config: DetectConfig) -> Callable[[np.ndarray], Detections]:
    """Images [B, H, W, 3] uint8 BGR to Detections as numpy arrays, on one device; compiled for each new shape."""
    mesh = make_mesh(1)
    variables = place(loaded.variables, mesh)
    program = predict.make_predict(loaded.model, mesh, config)
    return lambda images_BHW3: jax.device_get(program(variables, images_BHW3))


def export(
    loaded: Pretrained,
    size_hw: tuple[int, int],
    batch: int | None,
    config: DetectConfig,
    platforms: Sequence[str] = PLATFORMS,
) -> Exported:
    """The same as a program of StableHLO with the weights inside; any number of images at a time if `batch` is None."""

    @jax.jit
    def detect(images_BHW3: jax.Array) -> tuple[jax.Array, ...]:
        found = predict_images(loaded.model, loaded.variables, images_BHW3, config)
        return found.boxes, found.scores, found.labels, found.mask

    num_images = batch or jax.export.symbolic_shape("B", constraints=["B >= 1"])[0]
    images = jax.ShapeDtypeStruct((num_images, *size_hw, 3), jnp.uint8)
    return Exported(jax.export.export(detect, platforms=platforms)(images), loaded.class_names, size_hw, batch)


def _names_of(num_classes: int) -> tuple[str, ...]:
    if num_classes == len(COCO_NAMES):
        return COCO_NAMES
    return tuple(f"class_{label}" for label in range(num_classes))
