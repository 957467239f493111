"""Freezes every variable whose path matches one of the given regular expressions.

A path is such as backbone/backbone/stem/conv/conv/kernel; a pattern matches if it is found anywhere in it.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax

from yolox_jax.errors import UserError
from yolox_jax.models.layers import BatchNorm


def frozen_mask(variables: Any, patterns: tuple[str, ...]) -> Any:
    """Returns a tree like `variables`, {"params", "batch_stats"}, that is True where a variable is frozen.

    The modules have the official names: "backbone/backbone" is the backbone, "backbone" the neck with its backbone,
    "head" the head.

    Raises:
      UserError: a pattern is not a regular expression or matches no path, or all parameters are frozen.
    """
    paths = [_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(variables)]
    for pattern in patterns:
        try:
            is_used = any(re.search(pattern, path) for path in paths)
        except (re.error, TypeError) as error:  # TypeError: a number
            raise UserError(
                f"config.freeze has {pattern!r}, which is not a regular expression ({error})",
                "put a backslash before each character that is meant literally",
            ) from error
        if not is_used:
            raise UserError(
                f"config.freeze has {pattern!r}, which matches no variable",
                f"give a part of a variable's path, such as {paths[0]} or {paths[-1]}",
            )
    mask = jax.tree_util.tree_map_with_path(lambda keys, _: _is_frozen(_path(keys), patterns), variables)
    if all(jax.tree.leaves(mask["params"])):
        raise UserError(f"config.freeze is {patterns}, which freezes every parameter", "leave some of them out")
    return mask


def keep_frozen(mask: Any, new: Any, old: Any) -> Any:
    """Takes `old` where the mask is True, `new` elsewhere."""
    return jax.tree.map(lambda frozen, after, before: before if frozen else after, mask, new, old)


def stop_frozen_gradients(mask: Any, params: Any) -> Any:
    """Stops the gradients of the frozen parameters, so that the compiled step omits everything only they need."""
    return jax.tree.map(lambda frozen, param: jax.lax.stop_gradient(param) if frozen else param, mask, params)


@contextlib.contextmanager
def frozen_statistics(patterns: tuple[str, ...]) -> Iterator[None]:
    """Inside the context, a BatchNorm with frozen statistics normalizes by them in training too, like torch's eval().

    This covers only the BatchNorm of models/layers.py: other normalization layers of your own backbone still train.
    """

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if isinstance(module, BatchNorm) and _is_frozen("/".join([*module.path, "mean"]), patterns):
            return call(args[0], False)
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield


def _is_frozen(path: str, patterns: tuple[str, ...]) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)


def _path(keys: tuple[Any, ...]) -> str:
    return "/".join(key.key for key in keys[1:])  # the first key is the collection
