"""Runs on the host: calls the user's own augmentation, config.augment_hook, and checks what it returns."""

import functools
import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from yolox_jax.boxes import clip_xyxy
from yolox_jax.errors import NotFoundError, UserError

Hook = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], Any]

_RETURN = "return image [h, w, 3] uint8, boxes [n, 4] xyxy in its pixels and labels [n], as it got them"


@functools.lru_cache  # by name, so that a config with a hook can be pickled for worker processes
def load(name: str) -> Hook:
    """Imports a function by "module:function"; the working directory is searched last.

    Raises:
      UserError: there is none. An error inside the module keeps its traceback.
    """
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        raise UserError(f"config.augment_hook is {name!r}", "give module:function, such as my_augment:weather")
    module_name, function = name.split(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise NotFoundError(
            f"config.augment_hook is {name!r}, but there is no module {error.name}",
            "start in its folder, or add that to PYTHONPATH",
        ) from error
    found = getattr(module, function, None)
    if not callable(found):
        raise UserError(
            f"config.augment_hook is {name!r}, but {module.__name__} has no such function",
            f"define {function}(image, boxes, labels, rng) in {getattr(module, '__file__', module.__name__)}",
        )
    return found


def call(
    name: str,
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calls a hook with copies of image [h, w, 3], boxes [n, 4] and labels [n], and returns its own, checked.

    The boxes are clipped to the image, since rounding may have made it a pixel smaller. The new image may have any
    size, and any number of boxes, which are clipped to it too; those that are outside of it are left out.

    Raises:
      UserError: it returned something else. An error inside the hook keeps its traceback.
    """
    given_boxes = clip_xyxy(boxes_xyxy, image.shape[:2]).astype(np.float32)
    returned = load(name)(np.array(image, order="C"), given_boxes, labels.astype(np.int32), rng)
    if not isinstance(returned, tuple | list) or len(returned) != 3:
        raise _wrong(name, f"{type(returned).__name__} instead of three values")
    new_image, new_boxes, new_labels = returned
    if not isinstance(new_image, np.ndarray) or new_image.dtype != np.uint8:
        raise _wrong(name, f"an image that is {getattr(new_image, 'dtype', type(new_image).__name__)}")
    if new_image.ndim != 3 or new_image.shape[2] != 3 or not new_image.size:
        raise _wrong(name, f"an image of shape {new_image.shape}")
    new_boxes, new_labels = _numbers(name, "boxes", new_boxes), _numbers(name, "labels", new_labels)
    if not new_boxes.size:
        new_boxes = new_boxes.reshape(0, 4)
    if new_boxes.ndim != 2 or new_boxes.shape[1] != 4 or new_labels.shape != new_boxes.shape[:1]:
        raise _wrong(name, f"boxes of shape {new_boxes.shape} with labels of shape {new_labels.shape}")
    is_box = np.isfinite(new_boxes).all(axis=1) & (new_boxes[:, :2] <= new_boxes[:, 2:]).all(axis=1)
    if not is_box.all():
        raise _wrong(name, f"the box {new_boxes[~is_box][0].tolist()}")
    is_label = (0 <= new_labels) & (new_labels < num_classes) & (new_labels == np.round(new_labels))
    if not is_label.all():
        raise _wrong(name, f"the label {new_labels[~is_label][0]:g}, of {num_classes} classes")
    clipped = clip_xyxy(new_boxes, new_image.shape[:2]).astype(np.float32)
    has_size = (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
    return np.ascontiguousarray(new_image), clipped[has_size], new_labels[has_size].astype(np.int32)


def _numbers(name: str, what: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise _wrong(name, f"{what} that are not numbers") from error


def _wrong(name: str, found: str) -> UserError:
    return UserError(f"config.augment_hook {name} returned {found}", _RETURN)
