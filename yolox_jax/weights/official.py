"""Converts official PyTorch state dicts to this project's variables and back.

Our modules have the reference's names, so a tensor's official name is its path joined by dots, with the leaf renamed.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from yolox_jax.errors import UserError
from yolox_jax.models import initial
from yolox_jax.models.folding import folded_shapes
from yolox_jax.models.yolox import VARIANTS, YOLOX
from yolox_jax.weights.torch_file import load_pth

__all__ = ["abstract_variables", "from_state_dict", "load_pth", "num_classes_of", "to_state_dict", "variant_of"]

Variables = dict[str, Any]  # {"params": …, "batch_stats": …}, nested by module name

_TORCH_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_COUNTER = "num_batches_tracked"  # torch's BatchNorm counts batches, but uses the count only if momentum is None
_CLASS_LAYERS = "head.cls_preds."  # the only tensors whose shape depends on the number of classes
_STEM = "backbone.backbone.stem.conv.conv.weight"  # of CSPDarknet; 64 channels at width 1
_STEM_DARKNET53 = "backbone.backbone.stem.0.conv.weight"
_MAX_NAMED = 5  # tensors named in an error: the file of another model differs in hundreds

_WHAT_TO_GIVE = "give a .pth file of the official YOLOX, and the model that it belongs to"

_log = logging.getLogger("yolox_jax.weights")


def from_state_dict(
    state_dict: Mapping[str, np.ndarray], model: YOLOX, *, seed: int = 0, class_rows: Sequence[int | None] | None = None
) -> Variables:
    """Converts the tensors of an official checkpoint to the model's variables, float32.

    Class k of the model takes class `class_rows[k]` of the layers that predict the class; with None it keeps its
    initial values, drawn from `seed`. Without `class_rows` both must have the same classes in the same order; if their
    number differs, logs a warning, and all classes keep their initial values.

    Raises:
      UserError: a tensor is missing, left over or of the wrong shape; the message names it.
    """
    paths = _torch_names(abstract_variables(model))
    names = {name: (path, shape) for path, (name, shape) in paths.items()}
    given = {name: tensor for name, tensor in state_dict.items() if not name.endswith(_COUNTER)}

    wanted = names[f"{_CLASS_LAYERS}0.bias"][1][0]
    found = num_classes_of(given) or wanted
    if class_rows is None and found != wanted:
        _log.warning(
            "the weights have %d classes, the model %d: %s* keep their initial values", found, wanted, _CLASS_LAYERS
        )
        class_rows = [None] * wanted
    _check_names_and_shapes(
        {n: (found, *shape[1:]) if n.startswith(_CLASS_LAYERS) else shape for n, (_, shape) in names.items()}, given
    )
    drawn = flatten_dict(initial.init_variables(model, seed)) if class_rows is not None and None in class_rows else {}
    flat = {}
    for name, (path, _) in names.items():
        array = _from_torch_layout(given[name])
        if class_rows is not None and name.startswith(_CLASS_LAYERS):
            array = _take_classes(array, class_rows, drawn.get(path))
        flat[path] = jnp.asarray(array, jnp.float32)
    return unflatten_dict(flat)


def to_state_dict(variables: Variables, model: YOLOX) -> dict[str, np.ndarray]:
    """Converts variables to official names and layouts without changing a bit; the batch counters are 0.

    Variables whose BatchNorm is folded (models/folding.py) have the names of the reference's fuse_model: convolutions
    with a bias.

    Raises:
      ValueError: the variables are not those of the model.
    """
    expected = abstract_variables(model)
    names = _torch_names(expected if "batch_stats" in variables else folded_shapes(model, expected))
    flat = flatten_dict(variables)
    if flat.keys() != names.keys():
        odd = sorted("/".join(path) for path in flat.keys() ^ names.keys())
        raise ValueError(f"the variables are not those of this model: {', '.join(odd[:_MAX_NAMED])} …")
    state_dict: dict[str, np.ndarray] = {}
    for path, (name, _) in names.items():
        state_dict[name] = _to_torch_layout(np.asarray(flat[path]))
        if name.endswith("running_var"):
            state_dict[name.removesuffix("running_var") + _COUNTER] = np.zeros((), np.int64)
    return state_dict


def num_classes_of(state_dict: Mapping[str, np.ndarray]) -> int | None:
    """Returns the number of classes that a state dict predicts, or None if it has no class layers."""
    bias = state_dict.get(f"{_CLASS_LAYERS}0.bias")
    return len(bias) if bias is not None and bias.ndim == 1 else None


def variant_of(state_dict: Mapping[str, np.ndarray]) -> str:
    """Returns the key of yolox.VARIANTS that these weights belong to, judged by their first layer.

    Raises:
      UserError: no variant has such a first layer.
    """
    if _STEM_DARKNET53 in state_dict:
        return "darknet53"
    if _STEM not in state_dict:
        raise UserError(
            f"these are not the weights of a YOLOX: there is neither a tensor {_STEM} nor {_STEM_DARKNET53}",
            _WHAT_TO_GIVE,
        )
    num_channels = state_dict[_STEM].shape[0] if state_dict[_STEM].ndim else 0
    of_width = {int(64 * v.width): name for name, v in VARIANTS.items() if not v.darknet53}
    if num_channels not in of_width:
        known = ", ".join(f"{name} {channels}" for channels, name in of_width.items())
        raise UserError(
            f"these weights belong to no known YOLOX: the first layer has {num_channels} channels; known: {known}",
            _WHAT_TO_GIVE,
        )
    return of_width[num_channels]


def abstract_variables(model: YOLOX) -> Variables:
    """Returns the shapes and types of the model's variables without computing them."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))


def _take_classes(array: np.ndarray, rows: Sequence[int | None], drawn: np.ndarray | None) -> np.ndarray:
    """Returns the classes `rows` of the last axis; where it is None, the class of `drawn`."""
    new = array if drawn is None else drawn
    classes = [new[..., label] if row is None else array[..., row] for label, row in enumerate(rows)]
    return np.stack(classes, axis=-1)


def _torch_names(variables: Variables) -> dict[tuple[str, ...], tuple[str, tuple[int, ...]]]:
    """Maps each path (collection, module …, leaf) to the official name and shape."""
    names = {}
    for path, array in flatten_dict(variables).items():
        name = ".".join((*path[1:-1], _TORCH_LEAF[path[-1]]))
        shape = tuple(array.shape)
        names[path] = (name, (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape)
    return names


def _from_torch_layout(tensor: np.ndarray) -> np.ndarray:
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor  # OIHW to HWIO


def _to_torch_layout(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if array.ndim == 4 else array


def _check_names_and_shapes(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray]) -> None:
    missing = [name for name in expected if name not in given]
    left_over = [name for name in given if name not in expected]
    wrong_shape = [
        f"{name} is {tuple(given[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:_MAX_NAMED])}{' …' if len(found) > _MAX_NAMED else ''}"
        for what, found in (("missing", missing), ("left over", left_over), ("of the wrong shape", wrong_shape))
        if found
    ]
    if problems:
        raise UserError("the weights are not of this model; tensors " + "; ".join(problems), _WHAT_TO_GIVE)
