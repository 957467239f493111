"""Arrays that the official PyTorch YOLOX computed, in reference.npz, and the weights that they were computed with.

The file is a selection of tests/golden, made by `python -m tests.golden.selection`; tests/golden/README.md says what
each array is.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolox_jax.boxes import cxcywh_to_xyxy
from yolox_jax.models.yolox import YOLOX
from yolox_jax.types import Batch
from yolox_jax.weights import official

FILE = Path(__file__).with_name("reference.npz")
NUM_CLASSES = 80  # of the networks' outputs
NUM_CLASSES_OF_LOSS = 7  # of the loss


def arrays() -> dict[str, np.ndarray]:
    """All arrays of the file."""
    with np.load(FILE) as file:
        return dict(file)


def batch(of: Mapping[str, np.ndarray]) -> Batch:
    """The batch whose loss the reference computed: arrays of the host, four images of 96×128."""
    labels_BG5 = of["trajectory/labels"]
    fields: dict[str, Any] = {  # Any: Batch declares jax.Array
        "images": of["trajectory/images"].transpose(0, 2, 3, 1).astype(np.float32),
        "gt_boxes": np.asarray(cxcywh_to_xyxy(labels_BG5[..., 1:])),
        "gt_labels": labels_BG5[..., 0].astype(np.int32),
        "gt_mask": labels_BG5.sum(axis=2) > 0,
    }
    return Batch(**fields)


def variables(model: YOLOX) -> official.Variables:
    """The weights of the reference's network, as variables of the model."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), official.abstract_variables(model))
    shapes = {name: tensor.shape for name, tensor in official.to_state_dict(zeros, model).items()}
    return official.from_state_dict(state_dict(shapes), model)


def state_dict(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights that all golden arrays were computed with: each tensor is drawn with its name as the seed."""
    return {name: _tensor(name, shape) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        value = 0.1 * rng.standard_normal(shape)
    elif name.endswith("bn.weight") or (len(shape) == 1 and name.endswith("weight")):
        value = rng.uniform(0.5, 1.5, shape)
    elif ("cls_preds" in name or "obj_preds" in name) and name.endswith("bias"):
        value = -4.6 + 0.1 * rng.standard_normal(shape)
    elif name.endswith("bias"):
        value = 0.1 * rng.standard_normal(shape)
    else:
        gain = 1.0
        if "_preds" in name:
            gain = 0.3
        elif name in ("backbone.backbone.stem.conv.conv.weight", "backbone.backbone.stem.0.conv.weight"):
            gain = 0.01
        value = gain / np.sqrt(np.prod(shape[1:])) * rng.standard_normal(shape)
    return np.asarray(value, np.float32)
