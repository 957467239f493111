"""Test-time augmentation: maps predictions for a mirrored or resized image back to the original image.

The anchor points of such a view are moved to where they lie in the original image, so that its raw outputs decode to
boxes of that image. The views of one image are then joined, as if the network had more anchors.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from yolox_jax.types import Anchors, Predictions


def unmirror(predictions: Predictions, anchors: Anchors, width: int) -> tuple[Predictions, Anchors]:
    """Maps predictions and anchors of a horizontally mirrored image, `width` pixels wide, back to the image."""
    # A center at (offset + index)·stride in the mirrored image is at (1 − offset + last index − index)·stride here.
    offset_x = 1 - predictions.box_deltas[..., :1]
    box_deltas = jnp.concatenate([offset_x, predictions.box_deltas[..., 1:]], axis=-1)
    centers = jnp.concatenate([width - anchors.centers[:, :1], anchors.centers[:, 1:]], axis=-1)
    return dataclasses.replace(predictions, box_deltas=box_deltas), dataclasses.replace(anchors, centers=centers)


def unscale(anchors: Anchors, scale: float) -> Anchors:
    """Maps the anchors of an image resized by `scale` back to the image; its predictions need no change."""
    return dataclasses.replace(anchors, centers=anchors.centers / scale, strides=anchors.strides / scale)


def join(views: Sequence[tuple[Predictions, Anchors]]) -> tuple[Predictions, Anchors]:
    """Joins the predictions and anchors of all views of the same images."""
    predictions, anchors = zip(*views, strict=True)
    return (
        jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *predictions),
        jax.tree.map(lambda *x: jnp.concatenate(x, axis=0), *anchors),
    )
