"""A source -> the batches of evaluation: each image once."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import grain
import numpy as np

from yolox_jax.augment import geometry
from yolox_jax.data.prefetch import ReadConfig, Shard, batches, position_of
from yolox_jax.data.views.naming import naming_the_image
from yolox_jax.types import Source


@dataclasses.dataclass(frozen=True)
class EvalBatch:
    """One process's part of a step of evaluation. The last batches are filled up with grey images under a False mask."""

    images: np.ndarray  # [B, H, W, 3] uint8, BGR
    ratios: np.ndarray  # [B] float32: input pixels per image pixel
    mask: np.ndarray  # [B] bool: True where there is an image
    indices: np.ndarray  # [B] int64, into the source


def eval_loader(
    source: Source,
    *,
    size_hw: tuple[int, int],
    batch: int,
    shard: Shard = Shard(),
    threads: int = 2,
    prefetch: int = 8,
) -> Iterable[EvalBatch]:
    """Each image once, in the source's order, in batches of `batch` images a process; may be iterated again.

    Step t of process i has the images from (t*P + i) * batch on. Every process gives the same number of batches, padded
    and masked, since all hosts must run the same programs. A failing image is a SampleError.
    """
    num_batches = -(-len(source) // (batch * shard.process_count))
    rows = grain.MapDataset.range(num_batches * batch).map(_ReadEvalRow(source, batch, shard, size_hw))
    return batches(rows, batch, _stack_eval, ReadConfig(threads=threads, prefetch=prefetch))


@dataclasses.dataclass(frozen=True)
class _ReadEvalRow:
    """One row of each of EvalBatch's arrays."""

    source: Source
    batch: int
    shard: Shard
    size_hw: tuple[int, int]

    def __call__(self, element: int) -> tuple[Any, ...]:
        index = position_of(element, self.batch, self.shard)
        if index >= len(self.source):
            return np.full((*self.size_hw, 3), geometry.PAD_VALUE, np.uint8), 1.0, False, 0
        with naming_the_image(self.source, index):
            boxed, ratio = geometry.letterbox(self.source[index].image, self.size_hw)
            return boxed, ratio, True, index


def _stack_eval(rows: Sequence[tuple[Any, ...]]) -> EvalBatch:
    images, ratios, mask, indices = zip(*rows, strict=True)
    return EvalBatch(
        images=np.stack(images),
        ratios=np.array(ratios, np.float32),
        mask=np.array(mask, np.bool_),
        indices=np.array(indices, np.int64),
    )
