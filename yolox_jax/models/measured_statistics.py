"""Measures the BatchNorm statistics of a network on images, as after its weights were averaged."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from yolox_jax.errors import UserError
from yolox_jax.models.freezing import frozen_mask, frozen_statistics, keep_frozen
from yolox_jax.models.layers import BN_KEEP, BatchNorm


def measure(
    model: Any,
    variables: Any,
    batches: Iterable[np.ndarray],
    keep: tuple[str, ...] = (),
    progress: Callable[[int], None] | None = None,
) -> Any:
    """Returns the variables with the statistics of these images: the mean over the batches, as torch's update_bn.

    As in training, each layer sees what the layers before it make of its batch, normalized by that batch.

    Args:
      model: the network.
      variables: its "params" and "batch_stats".
      batches: images [B, H, W, 3] uint8 or float32, of one shape; at least one batch.
      keep: regular expressions of the paths of statistics that stay, since the network was trained with them as they
        are (config.freeze); meanwhile, these layers normalize by them.
      progress: called with the number of batches done.
    Raises:
      UserError: a statistic is not of a BatchNorm of models/layers.py, whose update alone is known.
    """
    kept, old = frozen_mask(variables, keep)["batch_stats"], variables["batch_stats"]
    start = keep_frozen(kept, jax.tree.map(jnp.zeros_like, old), old)

    @jax.jit
    def add(total: Any, params: Any, images_BHW3: jax.Array) -> Any:
        before = {"params": params, "batch_stats": start}
        layers: set[str] = set()
        with frozen_statistics(keep), nn.intercept_methods(functools.partial(_note_batch_norm, layers)):
            _, after = model.apply(before, images_BHW3.astype(jnp.float32), train=True, mutable=["batch_stats"])
        _check_known(after["batch_stats"], layers)
        # From zeros, an update leaves the share of the new batch.
        return jax.tree.map(lambda total, new: total + new / (1 - BN_KEEP), total, after["batch_stats"])

    total, count = jax.tree.map(jnp.zeros_like, old), 0
    for images_BHW3 in batches:
        total, count = add(total, variables["params"], images_BHW3), count + 1
        if progress is not None:
            progress(count)
    mean = jax.tree.map(lambda total: total / count, total)
    return {**variables, "batch_stats": keep_frozen(kept, mean, old)}


def _note_batch_norm(layers: set[str], call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    if isinstance(context.module, BatchNorm):
        layers.add("/".join(context.module.path))
    return call(*args, **kwargs)


def _check_known(batch_stats: Any, layers: set[str]) -> None:
    for path in flatten_dict(batch_stats, sep="/"):
        if path.rpartition("/")[0] not in layers:
            what = f"the statistic {path} is not of a BatchNorm of yolox_jax/models/layers.py"
            raise UserError(what, "use that layer, or measure nothing: --batches=0")
