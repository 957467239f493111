"""Test-time augmentation: maps predictions for a mirrored or resized image back to the original image.

The anchor points of such a view are moved to where they lie in the original image, so that its raw outputs decode to
boxes of that image. The views of one image are then joined, as if the network had more anchors.
"""

import dataclasses
from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp

from yolox_jax.types import Anchors, Predictions


def unmirror(predictions: Predictions) -> Predictions:
    """Maps predictions for a horizontally mirrored image to the anchors that `unmirror_anchors` returns."""
    # A center at (offset + index)·stride in the mirrored image is at (1 − offset + last index − index)·stride here.
    offset_x = 1 - predictions.box_deltas[..., :1]
    box_deltas = jnp.concatenate([offset_x, predictions.box_deltas[..., 1:]], axis=-1)
    return dataclasses.replace(predictions, box_deltas=box_deltas)


def unmirror_anchors(anchors: Anchors, width: int) -> Anchors:
    """Maps the anchors of a horizontally mirrored image, `width` pixels wide, back to the image."""
    centers = jnp.concatenate([width - anchors.centers[:, :1], anchors.centers[:, 1:]], axis=-1)
    return dataclasses.replace(anchors, centers=centers)


def unscale(anchors: Anchors, scale: float) -> Anchors:
    """Maps the anchors of an image resized by `scale` back to the image; its predictions need no change."""
    return dataclasses.replace(anchors, centers=anchors.centers / scale, strides=anchors.strides / scale)


def join(views: Sequence[Predictions]) -> Predictions:
    """Joins the predictions for all views of the same images."""
    return cast(Predictions, jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *views))


def join_anchors(views: Sequence[Anchors]) -> Anchors:
    """Joins the anchors of all views, in the order of `join`."""
    return cast(Anchors, jax.tree.map(lambda *x: jnp.concatenate(x, axis=0), *views))
