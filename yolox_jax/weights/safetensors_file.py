"""Weights as a .safetensors file: the official tensors, and in the metadata network, class names and input size.

The names are those of the official state dict, so `load_state_dict` of the reference takes them. The file is numbers
and a JSON header; reading it runs no code.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolox_jax import storage
from yolox_jax.detection.anchors import check_size
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.weights import strict_json
from yolox_jax.weights.strict_json import FieldError

ENDING = ".safetensors"
_LAYOUT = {"format": "pt"}  # the tensors are laid out as PyTorch's; other tools look for it
_MOST_HEADER = 100_000_000  # bytes; the library refuses more too
_ABOUT = ("model", "class_names", "input_size", "sixteen_bit")


@dataclasses.dataclass(frozen=True)
class About:
    """What the metadata say of the weights."""

    model: str  # a key of yolox.VARIANTS
    class_names: tuple[str, ...]
    size_hw: tuple[int, int]  # input size in training
    sixteen_bit: str  # how images of 16 bits became those of training: config.data.sixteen_bit


def check_installed() -> None:
    """Raises a UserError if the package is missing: before the work whose result is to be saved."""
    _library()


def save(path: str | Path, state_dict: Mapping[str, np.ndarray], about: About) -> None:
    """Writes the file.

    Raises:
      UserError: the file cannot be written, or the package safetensors is missing.
    """
    values = about.model, json.dumps(about.class_names), json.dumps(about.size_hw), about.sixteen_bit
    data = _library().save(dict(state_dict), metadata=_LAYOUT | dict(zip(_ABOUT, values, strict=True)))
    storage.write_bytes(Path(path), data)


def load(path: str | Path) -> tuple[dict[str, np.ndarray], About | None]:
    """Reads the tensors, 16-bit ones as float32, and what the metadata say: None for a file of another program.

    Raises:
      UserError: the file cannot be read, is not a .safetensors file or damaged, or the package is missing.
    """
    library = _library()
    with _reading(path):
        tensors = library.load(Path(path).read_bytes())
    return {name: _as_float32(tensor) for name, tensor in tensors.items()}, read_about(path)


def read_about(path: str | Path) -> About | None:
    """Reads what the metadata say, without the tensors; needs no package.

    Raises:
      UserError: as `load`.
    """
    with _reading(path), Path(path).open("rb") as file:
        num_bytes = int.from_bytes(file.read(8), "little")
        header = strict_json.parse(file.read(min(num_bytes, _MOST_HEADER)), any_text=True)
        return _about(header.get("__metadata__", {}))


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Turns the errors of the block, which reads the file, into UserErrors that name it."""
    try:
        storage.check_no_pointer(path)
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}", "check the path") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})", "check the path") from error
    except KeyError as error:  # a type that numpy lacks
        raise UserError(f"{path} has tensors of type {error}", "save them as float32 or float16") from error
    except Exception as error:  # safetensors raises errors of its own
        raise UserError(
            f"{path} is not a .safetensors file, or damaged ({error!r})", "copy it again; delete a downloaded one first"
        ) from error


def _about(metadata: Any) -> About | None:
    if not set(_ABOUT) <= metadata.keys():
        return None
    class_names, size = (strict_json.parse(metadata[name].encode()) for name in ("class_names", "input_size"))
    if not (isinstance(class_names, list) and class_names and all(isinstance(name, str) for name in class_names)):
        raise FieldError("class_names is not a list of names")
    if not (isinstance(size, list) and len(size) == 2):
        raise FieldError(f"input_size is {strict_json.shown(size)}, not two numbers")
    return About(metadata["model"], tuple(class_names), check_size(size), metadata["sixteen_bit"])


def _as_float32(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UserError(
            f"a .safetensors file needs the package safetensors ({error})", "pip install safetensors"
        ) from error
    return safetensors.numpy
