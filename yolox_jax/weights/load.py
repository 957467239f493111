"""Loads the weights that a user names: a run, a checkpoint, a .pth or .safetensors file, or an official name."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yolox_jax import storage
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.models import yolox
from yolox_jax.weights import checkpoint, download, hub, official, safetensors_file
from yolox_jax.weights.class_rows import find_rows
from yolox_jax.weights.meta import Meta
from yolox_jax.weights.official import Variables
from yolox_jax.weights.safetensors_file import About

# For the help of flags.
WHAT_WEIGHTS_ARE = (
    "A run directory, a checkpoint, a .pth or .safetensors file, an address (hf://, https://, gs://, s3://), or a name "
    "like yolox_s."
)
_WHAT_TO_GIVE = "give a run directory, a checkpoint, a .pth or .safetensors file, or a name such as yolox_s"


@dataclasses.dataclass(frozen=True)
class FoundWeights:
    """The weights that a user named, looked for once: a run that trains meanwhile gets a newer last checkpoint."""

    spec: str
    checkpoint: Path | None = None  # None: an official file
    meta: Meta | None = None  # of the checkpoint


def find_weights(spec: str) -> FoundWeights:
    """Finds the checkpoint that a user named, copies it from a bucket, and reads its meta. hf:// and https are files.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    if spec.startswith(hub.SCHEME) or download.is_url(spec):
        return FoundWeights(spec)
    found = checkpoint.find(storage.resolve(spec))
    return FoundWeights(spec, found, None if found is None else checkpoint.read_meta(found))


def load_weights(
    weights: str | FoundWeights,
    model_name: str,
    class_names: tuple[str, ...],
    *,
    transfer: bool = False,
    seed: int = 0,
    item: str = "ema",
) -> Variables:
    """Loads the variables of model `model_name` for these classes, which are matched by name (class_rows.py).

    Args:
      weights: a run directory (its last checkpoint), a checkpoint directory, a .pth or .safetensors file, also at
        hf:// or https, or a name such as yolox_s, which is downloaded once; or what `find_weights` found of it.
      model_name: a key of yolox.VARIANTS.
      class_names: the classes of the data, in the order of the labels.
      transfer: accept weights of other classes. In the layers that predict the class, each class that the weights lack
        keeps its initial values, drawn from `seed`.
      seed: see `transfer`.
      item: which weights of a checkpoint to read: "ema", the EMA weights, or "raw", those that the optimizer updates.
        Official files have only one kind.

    Raises:
      UserError: the item is unknown; the weights do not exist, cannot be read or are not finite; they belong to another
        model or, without `transfer`, to other classes.
    """
    if item not in ("ema", "raw"):
        raise UserError(f"config.init_item is {item!r}", "choose ema or raw")
    model = yolox.create(model_name, len(class_names))
    if isinstance(weights, str):
        weights = find_weights(weights)
    found, meta = weights.checkpoint, weights.meta
    if found is None or meta is None:
        return _from_official(weights.spec, model, class_names, transfer, seed)
    if meta.model != model_name:
        raise UserError(
            f"{found} holds a YOLOX-{meta.model}, config.model is {model_name!r}",
            f"set --config.model={meta.model}, or choose other weights",
        )
    rows = find_rows(str(found), meta.class_names, class_names, transfer=transfer)
    trained = yolox.create(model_name, len(meta.class_names))
    variables = checkpoint.read_variables(found, official.abstract_variables(trained), item)
    check_finite(variables, str(found), f"python -m yolox_jax.tools.checkpoints {found.parent.parent} lists others")
    if rows == tuple(range(len(meta.class_names))):
        return variables
    return official.from_state_dict(official.to_state_dict(variables, trained), model, seed=seed, class_rows=rows)


def read_official(spec: str) -> dict[str, np.ndarray]:
    """Reads the tensors of a file as `read_weights_file` does."""
    return read_weights_file(spec)[0]


def read_weights_file(spec: str) -> tuple[dict[str, np.ndarray], About | None]:
    """Reads the tensors of a .pth or .safetensors file, or of official weights by name, which are downloaded once.

    Returns them with what the file says about them: only a .safetensors file of ours does.

    Raises:
      UserError: there is no such file or name, the file is not a weights file, its numbers are not finite, or it names
        another number of classes than it predicts.
    """
    path, about = _official_file(spec), None
    if path.suffix == safetensors_file.ENDING:
        state_dict, about = safetensors_file.load(path)
    else:
        state_dict = official.load_pth(path)
    check_finite(state_dict, spec, "choose other weights")
    num_classes = official.num_classes_of(state_dict)
    if about is not None and num_classes != len(about.class_names):
        raise UserError(
            f"{spec} names {len(about.class_names)} classes, but its tensors predict {num_classes}", "export it again"
        )
    return state_dict, about


def read_about(weights: FoundWeights) -> About | None:
    """Returns what a .safetensors file says about its weights, without reading them; None for all others.

    Raises:
      UserError: the file cannot be downloaded or read.
    """
    if weights.checkpoint is not None:
        return None
    path = Path(download.local_file(weights.spec))
    return safetensors_file.read_about(path) if path.suffix == safetensors_file.ENDING else None


def check_finite(weights: Any, name: str, advice: str) -> None:
    """Raises a UserError for the first array with NaN or infinite numbers, which would detect nothing in silence."""
    for path, array in jax.tree.leaves_with_path(weights):
        if not np.isfinite(array).all():
            numbers = f"{np.count_nonzero(~np.isfinite(array))} of {np.size(array)} numbers"
            raise UserError(f"{name}: {numbers} of {jax.tree_util.keystr(path)} are not finite", advice)


def identify(weights: FoundWeights) -> dict[str, str]:
    """Returns what results may say of these weights: as they were given, and the SHA-256 of a file.

    Raises:
      UserError: there is no such file or name.
    """
    if weights.checkpoint is not None:
        return {"weights": weights.spec}
    return {"weights": weights.spec, "weights_sha256": download.sha256(_official_file(weights.spec))}


def _official_file(spec: str) -> Path:
    local = download.local_file(spec)
    if storage.is_remote(local):
        raise NotFoundError(f"there is no file, run or checkpoint {spec}", _WHAT_TO_GIVE)
    path = Path(local)
    if path.is_dir():
        raise UserError(f"{spec} is a folder without checkpoints", _WHAT_TO_GIVE)
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise NotFoundError(f"there is no file or folder {spec}", _WHAT_TO_GIVE)
    return download.fetch_official(spec)


def _from_official(spec: str, model: yolox.YOLOX, class_names: tuple[str, ...], transfer: bool, seed: int) -> Variables:
    state_dict, about = read_weights_file(spec)
    num_classes = official.num_classes_of(state_dict)
    theirs = num_classes if about is None else about.class_names
    rows = None if theirs is None else find_rows(spec, theirs, class_names, transfer=transfer)
    try:
        return official.from_state_dict(state_dict, model, seed=seed, class_rows=rows)
    except UserError as error:  # its message does not name the file
        raise UserError(f"{spec}: {error.what}", error.advice) from error
