"""Joins what the network predicts in the tiles of an image, as if it had more anchors, all in pixels of the image.

An object that the edge of a tile cuts is seen whole in a neighboring tile, if it is smaller than their overlap, or in
the whole image. So a box that ends at such an edge counts less, and any box of its class that covers it suppresses it.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from yolox_jax.types import Anchors, Predictions, Tiles

CUT_WEIGHT = 0.5  # multiplies the score of a box that ends at an edge where its tile cuts objects
_MARGIN = 4.0  # input pixels; half the smallest stride: a box that ends so near an edge is taken to be cut there
_NOTHING = -1e9  # a logit


class Joined(NamedTuple):
    """What all tiles of one image show, without B."""

    predictions: Predictions  # [A, ...]
    anchors: Anchors  # [A], in pixels of the image
    limits_xyxy: jax.Array  # [A, 4], in pixels of the image: a box that reaches beyond is cut; of padding, every box is


def join(predictions: Predictions, tiles: Tiles, anchors: Anchors, min_anchors: int) -> Joined:
    """Joins the tiles of one image.

    Args:
      predictions: of its T tiles, [T, A, ...]. T may be symbolic (jax.export).
      tiles: of this image, without B; its pixels are not used.
      anchors: of one tile, [A].
      min_anchors: the least number of anchors to return, static; padding anchors have the score 0.
    """
    ratio_T1 = tiles.ratios[:, None]
    low_T2, high_T2 = tiles.edges[:, :2] + _MARGIN / ratio_T1, tiles.edges[:, 2:] - _MARGIN / ratio_T1
    limits_T4 = jnp.where(tiles.mask[:, None], jnp.concatenate([low_T2, high_T2], axis=1), jnp.inf)
    centers_TA2 = anchors.centers[None] / ratio_T1[..., None] + tiles.origins[:, None]
    per_tile = Joined(
        dataclasses.replace(predictions, obj_logits=jnp.where(tiles.mask[:, None], predictions.obj_logits, _NOTHING)),
        Anchors(centers_TA2, anchors.strides[None] / ratio_T1),
        jnp.broadcast_to(limits_T4[:, None], (*centers_TA2.shape[:2], 4)),
    )
    joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), per_tile)
    num_more = min_anchors - len(anchors.strides)
    if num_more <= 0:  # whatever T is, it is 1 or more
        return joined
    nothing = Joined(
        Predictions(*(jnp.full((num_more, *x.shape[1:]), _NOTHING) for x in jax.tree.leaves(joined.predictions))),
        Anchors(jnp.zeros((num_more, 2)), jnp.ones(num_more)),
        jnp.full((num_more, 4), jnp.inf),
    )
    return jax.tree.map(lambda *x: jnp.concatenate(x), joined, nothing)


def cut_mask(boxes_xyxy_N4: jax.Array, limits_xyxy_N4: jax.Array) -> jax.Array:
    """True [N] for a box that reaches beyond its limits."""
    low_N2 = boxes_xyxy_N4[:, :2] < limits_xyxy_N4[:, :2]
    return (low_N2 | (boxes_xyxy_N4[:, 2:] > limits_xyxy_N4[:, 2:])).any(axis=1)


def order(score_N: jax.Array, cut_N: jax.Array, conf: float) -> tuple[jax.Array, jax.Array]:
    """Returns scores, those of cut boxes times CUT_WEIGHT and -1 below the threshold, and the order for NMS, [N] each.

    Whole boxes come first, so that a cut one never suppresses a whole one. What has the score 0 is dropped: padding.
    """
    weighted_N = jnp.where(cut_N, CUT_WEIGHT * score_N, score_N)
    passed_N = jnp.where((weighted_N >= conf) & (score_N > 0), weighted_N, -1.0)
    return passed_N, jnp.argsort(jnp.where(cut_N, passed_N - 2, passed_N), descending=True)
