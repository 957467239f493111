"""Initial values of parameters, drawn on the host: XLA takes seconds to compile one draw for each convolution."""

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

_host_stream: contextvars.ContextVar[np.random.Generator | None] = contextvars.ContextVar("_host_stream", default=None)


def uniform(fan_in: int | None = None) -> nn.initializers.Initializer:
    """torch's default for a Conv2d, kaiming_uniform(a=√5): U(−1/√fan_in, 1/√fan_in). None: the fan-in of the kernel."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        bound = 1 / math.sqrt(math.prod(shape[:-1]) if fan_in is None else fan_in)
        stream = _host_stream.get()
        if stream is None:
            return jax.random.uniform(key, shape, dtype, -bound, bound)
        return ((2 * stream.random(shape, np.float32) - 1) * np.float32(bound)).astype(dtype)

    return init


def constant(value: float) -> nn.initializers.Initializer:
    """The same value everywhere."""

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        return (jnp if _host_stream.get() is None else np).full(shape, value, dtype)

    return init


def init_variables(model: nn.Module, seed: int) -> Any:
    """Draws {"params", "batch_stats"} as numpy arrays, without running or compiling the network.

    The same seed gives the same numbers on every device. What other initializers than those above draw, in a backbone
    of someone else's, is compiled, and is what `model.init` draws from that seed.
    """

    def init(key: jax.Array) -> Any:
        with _drawn_on_host(seed):
            return model.init(key, jnp.zeros((1, 32, 32, 3)))

    variables: Any = None

    def trace(key: jax.Array) -> None:
        nonlocal variables
        variables = init(key)  # arrays of the host stay what they are; everything else is a tracer

    jax.eval_shape(trace, jax.random.key(seed))
    leaves, structure = jax.tree.flatten(variables)
    compiled = [place for place, leaf in enumerate(leaves) if not isinstance(leaf, np.ndarray)]
    if compiled:
        draw = jax.jit(lambda key: [jax.tree.leaves(init(key))[place] for place in compiled])
        for place, leaf in zip(compiled, draw(jax.random.key(seed)), strict=True):
            leaves[place] = np.asarray(leaf)
    return jax.tree.unflatten(structure, leaves)


@contextlib.contextmanager
def _drawn_on_host(seed: int) -> Iterator[None]:
    token = _host_stream.set(np.random.Generator(np.random.Philox(seed)))
    try:
        yield
    finally:
        _host_stream.reset(token)
