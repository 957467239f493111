"""The k largest values of each row, in two stages on a CPU and on CUDA."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from yolox_jax.detection.anchors import STRIDES

# Anchors of 32×32 pixels: 21. Every input size has a multiple of them, so the chunks divide the anchors evenly.
CHUNK = sum((STRIDES[-1] // stride) ** 2 for stride in STRIDES)


def top_k(x_GA: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k largest values of each row and their indices, [G, k] each; of equal values, the lowest index is first."""
    one_stage, two_stages = (functools.partial(form, k=k) for form in (_one_stage, _two_stages))
    return lax.platform_dependent(x_GA, cpu=two_stages, cuda=two_stages, default=one_stage)


def _one_stage(x_GA: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    best_GK, place_GK = lax.top_k(x_GA, k)
    return best_GK, place_GK


def _two_stages(x_GA: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    """Takes the k chunks with the largest maxima, then the k largest values in these.

    XLA:CPU computes maxima on all cores, but top_k on one. On CUDA, its top_k of whole rows takes five to nine times as
    long as both stages (benchmarks/NOTES.md).
    """
    num_rows, num_anchors = x_GA.shape
    if num_anchors % CHUNK or num_anchors < k * CHUNK:
        return _one_stage(x_GA, k=k)
    chunked_GNC = x_GA.reshape(num_rows, -1, CHUNK)
    _, chunk_GK = lax.top_k(chunked_GNC.max(axis=2), k)
    chunk_GK = jnp.sort(chunk_GK, axis=1)  # so that of equal values the lowest index is first
    candidates_GKC = jnp.take_along_axis(chunked_GNC, chunk_GK[:, :, None], axis=1)
    best_GK, place_GK = lax.top_k(candidates_GKC.reshape(num_rows, -1), k)
    return best_GK, jnp.take_along_axis(chunk_GK, place_GK // CHUNK, axis=1) * CHUNK + place_GK % CHUNK
