"""The seven networks: images to raw predictions."""

import dataclasses
import functools
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from yolox_jax.models.blocks import BlockConfig
from yolox_jax.models.fpn import FPN
from yolox_jax.models.head import Head
from yolox_jax.models.pafpn import PAFPN
from yolox_jax.types import Predictions

_LARGEST_STRIDE = 32


@dataclasses.dataclass(frozen=True)
class Variant:
    """What tells one network of the family from another; the numbers are those of the reference's exps/default."""

    depth: float  # × 3 bottlenecks a stage
    width: float  # × 64 channels after the stem, × 256 in the head
    depthwise: bool = False
    darknet53: bool = False  # Darknet53 and its own FPN, which have one size only


VARIANTS = {
    "nano": Variant(depth=0.33, width=0.25, depthwise=True),
    "tiny": Variant(depth=0.33, width=0.375),
    "s": Variant(depth=0.33, width=0.5),
    "m": Variant(depth=0.67, width=0.75),
    "l": Variant(depth=1.0, width=1.0),
    "x": Variant(depth=1.33, width=1.25),
    "darknet53": Variant(depth=1.0, width=1.0, darknet53=True),
}


class YOLOX(nn.Module):
    """One network of the family; the attributes `backbone` and `head` bear the reference's names.

    `apply(variables, images_BHW3, train)` takes BGR images in 0..255 (no mean, no std) of any multiple of 32, square or
    not, and gives raw `Predictions`. With train=True the collection "batch_stats" must be mutable.
    """

    variant: Variant
    num_classes: int
    dtype: jnp.dtype = jnp.float32
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, images_BHW3: jax.Array, train: bool = False) -> Predictions:
        _check_images(images_BHW3)
        variant = self.variant
        act = "leaky_relu" if variant.darknet53 else "silu"
        config = BlockConfig(act=act, depthwise=variant.depthwise, dtype=self.dtype, bn_axis=self.bn_axis)
        if variant.darknet53:
            backbone: nn.Module = FPN(config, name="backbone")
        else:
            backbone = PAFPN(int(variant.width * 64), round(variant.depth * 3), config, name="backbone")
        levels = backbone(images_BHW3.astype(self.dtype), train)
        return Head(self.num_classes, int(variant.width * 256), config, name="head")(levels, train)


def create(name: str, num_classes: int = 80, dtype: jnp.dtype = jnp.float32, *, bn_axis: str | None = None) -> YOLOX:
    """The network `name` of VARIANTS; `dtype` is that of the computation, parameters are float32.

    `bn_axis` names the mapped axis whose devices share BatchNorm's statistics in training; None: each has its own.

    Raises:
      ValueError: an unknown name or no class.
    """
    if name not in VARIANTS:
        raise ValueError(f"no model named {name!r}: choose one of {', '.join(VARIANTS)}")
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}: a detector needs at least one class")
    return YOLOX(VARIANTS[name], num_classes, dtype, bn_axis)


def count_flops(model: YOLOX, variables: Any, size_hw: tuple[int, int]) -> float | None:
    """Floating-point operations of predicting in one image: two for each multiply-add, before any rewriting for a device.

    Of the variables only the shapes count. None where jax may not use the CPU (JAX_PLATFORMS): GPUs and TPUs do not say.
    """
    try:
        on_cpu = SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return None
    plain = YOLOX(model.variant, model.num_classes)
    image_1HW3 = jax.ShapeDtypeStruct((1, *size_hw, 3), jnp.float32, sharding=on_cpu)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on_cpu), variables)
    lowered = jax.jit(functools.partial(plain.apply, train=False)).lower(shapes, image_1HW3)
    return cast(dict[str, float], lowered.cost_analysis())["flops"]


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of a name: float32, bfloat16, or auto, which is bfloat16 where the hardware is made for it.

    Raises:
      ValueError: another name.
    """
    dtypes = {
        "auto": jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16,
        "float32": jnp.float32,
        "bfloat16": jnp.bfloat16,
    }
    if name not in dtypes:
        raise ValueError(f"dtype is {name!r}: choose one of {', '.join(dtypes)}")
    return jnp.dtype(dtypes[name])


def _check_images(images: jax.Array) -> None:
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images have shape {images.shape}: expected [B, H, W, 3]")
    _, height, width, _ = images.shape
    if height <= 0 or width <= 0 or height % _LARGEST_STRIDE or width % _LARGEST_STRIDE:
        raise ValueError(
            f"images are {height}x{width} pixels (height x width): both sides must be positive multiples of "
            f"{_LARGEST_STRIDE}; pad or resize them first"
        )
