"""Loads a network with its weights, class names and input size: from a run, a checkpoint, a file or a name."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from yolox_jax.data.images import ImageConfig
from yolox_jax.errors import UserError
from yolox_jax.inference import predict
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.mesh import make_own_mesh, place, platform_of
from yolox_jax.models import yolox
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.types import Detections
from yolox_jax.weights import official
from yolox_jax.weights.coco_names import COCO_NAMES
from yolox_jax.weights.load import find_weights, load_weights, read_weights_file
from yolox_jax.weights.official import Variables

# For looking at pictures, unlike DetectConfig's defaults, which are for computing AP. conf and iou are those of the
# demo command in the reference's README (--conf 0.25 --nms 0.45); the two limits are ours.
DETECTOR_CONFIG = DetectConfig(conf=0.25, iou=0.45, max_detections=300, num_candidates=1000)
_OFFICIAL_SIZES = {"nano": (416, 416), "tiny": (416, 416)}  # test_size in the reference's exp files
_OFFICIAL_SIZE = (640, 640)  # all others


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Everything that detection needs. `model` has the requested compute dtype; the variables are float32."""

    name: str  # a key of yolox.VARIANTS
    model: yolox.YOLOX
    variables: Variables
    class_names: tuple[str, ...]
    size_hw: tuple[int, int]  # input size in training; other multiples of 32 work too
    image_config: ImageConfig = ImageConfig()  # how images of 16 bits become those of training

    def describe(self, size_hw: tuple[int, int]) -> str:
        """Names the network and the input size, and that of training if it is another."""
        text = f"YOLOX-{self.name} at {size_hw[0]}x{size_hw[1]}"
        return text if size_hw == self.size_hw else f"{text} (trained at {self.size_hw[0]}x{self.size_hw[1]})"


def load(weights: str, dtype: str = "auto") -> Pretrained:
    """Loads a run (its last checkpoint), a checkpoint, a .pth or .safetensors file or a name such as yolox_s.

    A run and our .safetensors files state network, class names and input size. For an official file, the network and
    the number of classes are inferred from its tensors; 80 classes are taken to be COCO's, any others are named
    class_0, class_1 …

    Raises:
      UserError: there are no such weights, they cannot be read, or they do not belong to a YOLOX.
    """
    found, sixteen_bit = find_weights(weights), "full"
    if found.meta is not None:
        name, class_names, size_hw = found.meta.model, found.meta.class_names, found.meta.size_hw
        sixteen_bit = found.meta.sixteen_bit
        if name not in yolox.VARIANTS:
            raise UserError(
                f"{found.checkpoint} holds a network {name!r}", f"this version has {', '.join(yolox.VARIANTS)}"
            )
        variables = load_weights(found, name, class_names)
    else:
        state_dict, about = read_weights_file(weights)
        try:
            name = official.variant_of(state_dict)
            num_classes = official.num_classes_of(state_dict) or 1  # None: from_state_dict reports the missing layers
            variables = official.from_state_dict(state_dict, yolox.create(name, num_classes))
        except UserError as error:
            raise UserError(f"{weights}: {error.what}", error.advice) from error
        class_names, size_hw = _class_names(num_classes), _OFFICIAL_SIZES.get(name, _OFFICIAL_SIZE)
        if about is not None:
            class_names, size_hw, sixteen_bit = about.class_names, about.size_hw, about.sixteen_bit
    model = yolox.create(name, len(class_names), yolox.compute_dtype(dtype))
    return Pretrained(name, model, variables, class_names, size_hw, ImageConfig(sixteen_bit=sixteen_bit))


def detector_config(**options: Any) -> DetectConfig:
    """Returns DETECTOR_CONFIG with these fields replaced, and at least as many candidates as detections."""
    config = dataclasses.replace(DETECTOR_CONFIG, **options)
    return dataclasses.replace(config, num_candidates=max(config.num_candidates, config.max_detections))


def make_detect(loaded: Pretrained, config: DetectConfig) -> Callable[[Any], Detections]:
    """Makes a function of images [B, H, W, 3] uint8 BGR to Detections as numpy arrays, with the weights bound.

    If the config cuts images, the function takes Tiles. It runs on one device, and is compiled once for each shape.
    """
    mesh = make_own_mesh()
    variables = place(fold_batch_norm(loaded.model, loaded.variables, platform_of(mesh)), mesh)
    program = predict.make_predict(loaded.model, mesh, config)
    return lambda images: jax.device_get(program(variables, images))


def _class_names(num_classes: int) -> tuple[str, ...]:
    if num_classes == len(COCO_NAMES):
        return COCO_NAMES
    return tuple(f"class_{label}" for label in range(num_classes))
