"""The seven networks, and how to compose your own.

A network is a backbone, a neck and a head:

- a backbone is a module of (images [B, H, W, 3], train) -> features at stride 8, 16 and 32: three arrays
  [B, H/stride, W/stride, channels] with any numbers of channels. Images are BGR in 0..255.
- a neck has the same signature. It calls its backbone with name="backbone".
- a head is a module of (features, train) -> `Predictions` in float32.

Each is passed as a callable that makes the module when called with name=, such as a class whose fields are set by
functools.partial. A backbone of your own needs no change in this package:

    config = BlockConfig()
    model = YOLOX(
        neck=functools.partial(PAFPN, MyBackbone, base_depth=1, config=config),
        head=functools.partial(Head, num_classes=3, features=64, config=config),
    )
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yolox_jax.compiler_options import CpuKernels
from yolox_jax.errors import UserError
from yolox_jax.models.blocks import BlockConfig
from yolox_jax.models.csp_darknet import CSPDarknet
from yolox_jax.models.darknet53 import Darknet53
from yolox_jax.models.fpn import FPN
from yolox_jax.models.head import Head
from yolox_jax.models.kernels.precision import native_dtype_here
from yolox_jax.models.kernels.space_to_depth import Choice
from yolox_jax.models.layers import BatchNorm, Conv
from yolox_jax.models.pafpn import PAFPN
from yolox_jax.types import Predictions

_LARGEST_STRIDE = 32
DTYPES = ("auto", "float32", "bfloat16", "float16")  # the names that `compute_dtype` takes


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network of the family, with the numbers of the reference's exps/default."""

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
    """A detector: images to raw predictions.

    `apply(variables, images_BHW3, train)` takes BGR images in 0..255 (no mean, no std) whose sides are any multiples of
    32. With train=True the collection "batch_stats" must be mutable. The docstring of this file explains neck and head.
    """

    neck: Callable[..., nn.Module]
    head: Callable[..., nn.Module]
    cpu_kernels: CpuKernels = "xla"  # what its programs are compiled for, if they run on a CPU

    @nn.compact
    def __call__(self, images_BHW3: jax.Array, train: bool = False) -> Predictions:
        _check_images(images_BHW3)
        levels = self.neck(name="backbone")(images_BHW3, train)  # the reference's name for the neck
        return self.head(name="head")(levels, train)


def create(
    name: str,
    num_classes: int = 80,
    dtype: jnp.dtype = jnp.float32,
    *,
    bn_axis: str | None = None,
    space_to_depth: Choice = "auto",
    cpu_kernels: CpuKernels = "xla",
) -> YOLOX:
    """Creates the network `name` of VARIANTS.

    Args:
      dtype: the compute dtype; parameters, statistics and predictions are float32.
      bn_axis: the mapped axis whose devices share BatchNorm's statistics in training; None: each has its own.
      space_to_depth: whether the first stages of tiny and s have the layout that suits a TPU
        (kernels/space_to_depth.py); the other networks ignore it. Parameters and, up to rounding, predictions are the
        same.
      cpu_kernels: "onednn" if its programs are for a CPU and compiled with the options for it (compiler_options.py);
        without them they are slow. Other dtypes than float32 ignore it. Parameters and, up to rounding, predictions are
        the same.

    Raises:
      UserError: the name is unknown, or `num_classes` is below 1.
    """
    if name not in VARIANTS:
        raise UserError(f"no model named {name!r}", f"choose one of {', '.join(VARIANTS)}")
    if num_classes < 1:
        raise UserError(f"num_classes is {num_classes}", "give at least 1")
    variant = VARIANTS[name]
    if dtype != jnp.float32:  # not every processor has oneDNN's kernels of 16 bits
        cpu_kernels = "xla"
    act = "leaky_relu" if variant.darknet53 else "silu"
    config = BlockConfig(act=act, depthwise=variant.depthwise, dtype=dtype, bn_axis=bn_axis, cpu_kernels=cpu_kernels)
    neck: Callable[..., nn.Module]
    if variant.darknet53:
        neck = functools.partial(FPN, functools.partial(Darknet53, config), config)
    else:
        width, depth = int(variant.width * 64), round(variant.depth * 3)
        backbone = functools.partial(CSPDarknet, width, depth, config, space_to_depth)
        neck = functools.partial(PAFPN, backbone, depth, config)
    return YOLOX(neck, functools.partial(Head, num_classes, int(variant.width * 256), config), cpu_kernels)


def count_flops(model: YOLOX, size_hw: tuple[int, int]) -> int:
    """Counts the floating-point operations of convolutions and BatchNorm for predicting one image; multiply-add is two.

    The model must consist of this package's layers, without space-to-depth. It is called with layers that compute
    nothing, since tracing and lowering the network would take seconds.
    """
    num_flops = 0

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal num_flops
        layer = context.module
        if isinstance(layer, BatchNorm):
            num_flops += 2 * args[0].size
            return args[0]
        if not isinstance(layer, Conv):
            return call(*args, **kwargs)
        batch, height, width, in_features = args[0].shape
        y = jnp.zeros((batch, -(-height // layer.stride), -(-width // layer.stride), layer.features))
        num_flops += 2 * y.size * layer.kernel_size**2 * (1 if layer.depthwise else in_features)
        return y

    with nn.intercept_methods(intercept):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *size_hw, 3))))
    return num_flops


def compute_dtype(name: str, native: jnp.dtype | None = None) -> jnp.dtype:
    """The compute dtype of this name.

    Args:
      name: one of DTYPES; "auto" is the native dtype.
      native: of the devices that the network is for (kernels/precision.py); None: of those here.
    Raises:
      UserError: another name.
    """
    if name not in DTYPES:
        raise UserError(f"dtype is {name!r}", f"choose one of {', '.join(DTYPES)}")
    if name == "auto":
        return native_dtype_here() if native is None else native
    return jnp.dtype(name)


def _check_images(images: jax.Array) -> None:
    """Raises ValueError for any other shape. detection/anchors.py checks sizes too: neither may import the other."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images have shape {images.shape}: expected [B, H, W, 3]")
    _, height, width, _ = images.shape
    if height <= 0 or width <= 0 or height % _LARGEST_STRIDE or width % _LARGEST_STRIDE:
        raise ValueError(
            f"images are {height}x{width} pixels (height x width): both sides must be positive multiples of "
            f"{_LARGEST_STRIDE}; pad or resize them first"
        )
