"""Folds BatchNorm into the convolution before it, for detection: fewer operations, and the weights cast only once.

The network stays the same: a ConvBlock whose convolution has a bias computes without BatchNorm.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from yolox_jax.models.blocks import ConvBlock
from yolox_jax.models.kernels.convolution import store_kernel
from yolox_jax.models.layers import BN_EPSILON

_Dtypes = dict[tuple[str, ...], jnp.dtype]  # a ConvBlock's path to its compute dtype


def fold_batch_norm(model: nn.Module, variables: Any, platform: str = "cpu") -> Any:
    """Returns variables, as host arrays, with which `model` predicts the same: no BatchNorm, kernels cast.

    Each ConvBlock's convolution gets the kernel · scale / √(var + epsilon), in the block's compute dtype, and the bias
    that is left, in float32. Everything else, such as other normalization layers of your own backbone, is as it was.

    `platform` is that of the devices that will detect ("cpu", "gpu", "tpu"): on a GPU, kernels are stored in the order
    in which cuDNN reads them.
    """
    return _fold(_dtypes_of_blocks(model), platform, jax.device_get(variables))


def folded_shapes(model: nn.Module, variables: Any, platform: str = "cpu") -> Any:
    """Returns the shapes and types of `fold_batch_norm`; `variables` may be shapes and types too."""
    return jax.eval_shape(functools.partial(_fold, _dtypes_of_blocks(model), platform), variables)


def _fold(dtypes: _Dtypes, platform: str, variables: Any) -> Any:
    flat = flatten_dict(variables)
    for path, dtype in dtypes.items():
        scale, bias = (flat.pop(("params", *path, "bn", leaf)) for leaf in ("scale", "bias"))
        mean, var = (flat.pop(("batch_stats", *path, "bn", leaf)) for leaf in ("mean", "var"))
        factor_O = scale / (var + BN_EPSILON) ** 0.5
        kernel_HWIO = flat.pop(("params", *path, "conv", "kernel")) * factor_O[None, None, None]
        folded = store_kernel(kernel_HWIO.astype(dtype), platform) | {"bias": bias - mean * factor_O}
        flat |= {("params", *path, "conv", leaf): array for leaf, array in folded.items()}
    return unflatten_dict(flat)


def _dtypes_of_blocks(model: nn.Module) -> _Dtypes:
    """Finds the model's ConvBlocks by a call of the model in which they compute nothing, since tracing takes time."""
    dtypes: _Dtypes = {}

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        block = context.module
        if not isinstance(block, ConvBlock) or context.method_name != "__call__":
            return call(*args, **kwargs)
        dtypes[block.path] = block.config.dtype
        return jnp.zeros(block.output_shape(args[0].shape))

    with nn.intercept_methods(intercept):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    return dtypes
