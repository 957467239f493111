"""Reads a source into evaluation batches, each image once."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import grain
import numpy as np

from yolox_jax.augment import geometry
from yolox_jax.data.prefetch import ReadConfig, Shard, batches, position_of
from yolox_jax.data.views import chain
from yolox_jax.types import Source


@dataclasses.dataclass(frozen=True)
class EvalBatch:
    """One process's part of an evaluation batch; the last ones are padded with gray images whose mask is False."""

    images: np.ndarray  # [B, H, W, 3] uint8, BGR
    ratios: np.ndarray  # [B] float32: input pixels per image pixel
    mask: np.ndarray  # [B] bool: True for an image, False for padding
    indices: np.ndarray  # [B] int64, into the source; 0 for padding


def eval_loader(
    source: Source,
    *,
    size_hw: tuple[int, int],
    batch: int,
    threads: int,
    prefetch: int,
    shard: Shard = Shard(),
) -> Iterable[EvalBatch]:
    """Reads each image once, in the source's order, in batches of `batch` images per process.

    Batch t of process i of P starts at image (t*P + i) * batch. Every process gets the same number of batches, since
    all of them must run the same programs. The result may be iterated several times.

    Raises:
      SampleError: an image cannot be read, during iteration.
    """
    num_batches = -(-len(source) // (batch * shard.process_count))
    read_row = _ReadEvalRow(chain.as_read_by_evaluation(source), batch, shard, size_hw)
    rows = grain.MapDataset.range(num_batches * batch).map(read_row)
    return batches(rows, batch, _stack, ReadConfig(threads, workers=0, prefetch=prefetch, cache_bytes=0))


@dataclasses.dataclass(frozen=True)
class _ReadEvalRow:
    """Reads one row of each array of EvalBatch."""

    source: Source
    batch: int
    shard: Shard
    size_hw: tuple[int, int]

    def __call__(self, element: int) -> tuple[Any, ...]:
        index = position_of(element, self.batch, self.shard)
        if index >= len(self.source):
            return np.full((*self.size_hw, 3), geometry.PAD_VALUE, np.uint8), 1.0, False, 0
        boxed, ratio = geometry.letterbox(self.source[index].image, self.size_hw)
        return boxed, ratio, True, index


def _stack(rows: Sequence[tuple[Any, ...]]) -> EvalBatch:
    images, ratios, mask, indices = zip(*rows, strict=True)
    return EvalBatch(
        images=np.stack(images),
        ratios=np.array(ratios, np.float32),
        mask=np.array(mask, np.bool_),
        indices=np.array(indices, np.int64),
    )
