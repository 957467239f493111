"""Reads a source into evaluation batches, each image once."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from yolox_jax.augment import geometry
from yolox_jax.data import tiling as tilings
from yolox_jax.data.prefetch import ReadConfig, Shard, batches, position_of
from yolox_jax.data.quiet_grain import grain
from yolox_jax.data.tiling import Tiling
from yolox_jax.data.views import chain
from yolox_jax.types import Source, Tiles


@dataclasses.dataclass(frozen=True)
class EvalBatch:
    """One process's part of an evaluation batch; the last ones are padded with gray images whose mask is False."""

    images: np.ndarray | Tiles  # [B, H, W, 3] uint8, BGR; or tiles
    ratios: np.ndarray  # [B] float32: input pixels per image pixel; 1 with tiles
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
    tiling: Tiling | None = None,
) -> Iterable[EvalBatch]:
    """Reads each image once, in the source's order, in batches of `batch` images per process.

    Batch t of process i of P starts at image (t*P + i) * batch. Every process gets the same number of batches, since
    all of them must run the same programs. With a tiling, the images of a batch are padded to one number of tiles, that
    of all processes. The result may be iterated several times.

    Raises:
      SampleError: an image cannot be read, during iteration.
    """
    num_batches = -(-len(source) // (batch * shard.process_count))
    read_row: Any = _ReadEvalRow(chain.as_read_by_evaluation(source), batch, shard, size_hw)
    if tiling:
        counts = _tile_counts(source, tiling, size_hw, batch * shard.process_count)
        read_row = _ReadTiledRow(chain.as_read_by_evaluation(source), batch, shard, size_hw, tiling, counts)
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


@dataclasses.dataclass(frozen=True)
class _ReadTiledRow:
    """Reads what `_ReadEvalRow` does, with the image cut into tiles."""

    source: Source
    batch: int
    shard: Shard
    size_hw: tuple[int, int]
    tiling: Tiling
    counts: tuple[int, ...]  # the number of tiles in each batch

    def __call__(self, element: int) -> tuple[Any, ...]:
        index, count = position_of(element, self.batch, self.shard), self.counts[element // self.batch]
        if index >= len(self.source):
            return tilings.empty(self.size_hw, count), 1.0, False, 0
        return self.tiling.cut(self.source[index].image, self.size_hw, count), 1.0, True, index


def _tile_counts(source: Source, tiling: Tiling, size_hw: tuple[int, int], global_batch: int) -> tuple[int, ...]:
    """Returns the largest number of tiles in each batch, from the sizes that the source states."""
    size_of = {image["id"]: (image["height"], image["width"]) for image in source.ground_truth()["images"]}
    counts = [tiling.count(size_of[source.image_id(index)], size_hw) for index in range(len(source))]
    return tuple(max(counts[start : start + global_batch]) for start in range(0, len(counts), global_batch))


def _stack(rows: Sequence[tuple[Any, ...]]) -> EvalBatch:
    images, ratios, mask, indices = zip(*rows, strict=True)
    return EvalBatch(
        images=jax.tree.map(lambda *x: np.stack(x), *images),
        ratios=np.array(ratios, np.float32),
        mask=np.array(mask, np.bool_),
        indices=np.array(indices, np.int64),
    )
