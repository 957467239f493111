"""Test-time augmentation: predictions of a mirrored or resized image, as predictions of the image itself.

A view's anchor points are moved to where they lie in the image. The raw outputs then decode to boxes of the image, and
those of several views stand beside each other as of one network with more anchors.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from yolox_jax.types import Anchors, Predictions


def unmirror(predictions: Predictions, anchors: Anchors, width: int) -> tuple[Predictions, Anchors]:
    """Predictions of an image of `width` pixels mirrored left to right, and its anchors, as of the image."""
    # The centre (offset + index)·stride of the mirrored image is (1 − offset + last index − index)·stride here.
    offset_x = 1 - predictions.box_deltas[..., :1]
    box_deltas = jnp.concatenate([offset_x, predictions.box_deltas[..., 1:]], axis=-1)
    centers = jnp.concatenate([width - anchors.centers[:, :1], anchors.centers[:, 1:]], axis=-1)
    return dataclasses.replace(predictions, box_deltas=box_deltas), dataclasses.replace(anchors, centers=centers)


def unscale(anchors: Anchors, scale: float) -> Anchors:
    """The anchors of an image resized by `scale`, as of the image; its predictions stay as they are."""
    return dataclasses.replace(anchors, centers=anchors.centers / scale, strides=anchors.strides / scale)


def join(views: Sequence[tuple[Predictions, Anchors]]) -> tuple[Predictions, Anchors]:
    """All anchors of all views of the same images."""
    predictions, anchors = zip(*views, strict=True)
    return (
        jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *predictions),
        jax.tree.map(lambda *x: jnp.concatenate(x, axis=0), *anchors),
    )
