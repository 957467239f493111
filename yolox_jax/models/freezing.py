"""Which variables do not learn: those whose path, such as backbone/backbone/stem/conv/conv/kernel, a pattern is found in."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax

from yolox_jax.models.layers import BatchNorm


def frozen_mask(variables: Any, patterns: tuple[str, ...]) -> Any:
    """True where a variable is frozen, in a tree like {"params", "batch_stats"}.

    The names are the official ones: "backbone/backbone" is CSPDarknet, "backbone" that and the neck, "head" the rest.

    Raises:
      ValueError: a pattern that is no regular expression, that no path has, or patterns that leave nothing to learn.
    """
    paths = [_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(variables)]
    for pattern in patterns:
        try:
            is_used = any(re.search(pattern, path) for path in paths)
        except re.error as error:
            raise ValueError(f"config.freeze has {pattern!r}, which is no regular expression ({error})") from error
        if not is_used:
            raise ValueError(
                f"config.freeze has {pattern!r}, which is in no variable's path; the paths are such as {paths[0]}, {paths[-1]}"
            )
    mask = jax.tree_util.tree_map_with_path(lambda keys, _: _is_frozen(_path(keys), patterns), variables)
    if all(jax.tree.leaves(mask["params"])):
        raise ValueError(f"config.freeze is {patterns}: nothing is left to learn")
    return mask


def keep_frozen(mask: Any, new: Any, old: Any) -> Any:
    """`new`, but where the mask is True `old`."""
    return jax.tree.map(lambda frozen, after, before: before if frozen else after, mask, new, old)


def stop_frozen_gradients(mask: Any, params: Any) -> Any:
    """The parameters, of which the frozen ones ask for no gradient: nor, then, does what only they depend on."""
    return jax.tree.map(lambda frozen, param: jax.lax.stop_gradient(param) if frozen else param, mask, params)


@contextlib.contextmanager
def frozen_statistics(patterns: tuple[str, ...]) -> Iterator[None]:
    """Within it, a BatchNorm whose statistics are frozen normalises by them in training too, as torch's eval() makes it."""

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
    return "/".join(key.key for key in keys[1:])  # the first is the collection
