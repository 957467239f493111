"""Sources -> batches: shard by process, read ahead in threads, stack.

The guarantee everything rests on: the training sample at position p is a pure function of (seed, p), and the global
batch of step t is the positions t*B .. t*B + B - 1. So neither the number of threads, nor of processes, nor the step a
run starts at changes what is learnt, and a restored run needs nothing but its step.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import grain
import numpy as np

from yolox_jax import types
from yolox_jax.data import geometry
from yolox_jax.data.example import Source
from yolox_jax.data.samples import TrainSample, index_at, sample_rng, train_sample


class SampleError(RuntimeError):
    """An image could not be made into a sample. Names the image; its cause is the error itself."""


@dataclasses.dataclass(frozen=True)
class LoadedBatch:
    """One process's part of a global batch."""

    batch: types.Batch  # numpy arrays
    image_ids: tuple[int | str, ...]
    num_dropped_boxes: int  # boxes beyond the G slots


@dataclasses.dataclass(frozen=True)
class EvalBatch:
    """One process's part of a step of evaluation. The last batches are filled up with grey images under a False mask."""

    images: np.ndarray  # [B, H, W, 3] uint8, BGR
    ratios: np.ndarray  # [B] float32: input pixels per image pixel
    sizes_hw: np.ndarray  # [B, 2] int32: the images' own sizes
    mask: np.ndarray  # [B] bool: True where there is an image
    indices: np.ndarray  # [B] int64, into the source


def train_loader(
    source: Source,
    *,
    size_hw: tuple[int, int],
    global_batch: int,
    num_slots: int = 120,
    flip_prob: float = 0.5,
    seed: int,
    start_step: int = 0,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    prefetch: int = 8,
) -> grain.DatasetIterator:
    """An iterator over this process's rows of the `num_steps` batches from `start_step` on, as LoadedBatch.

    Process i of P has rows [i*B/P, (i+1)*B/P). `threads` read up to `prefetch` batches ahead; 0 of either reads in the
    caller's thread. The iterator's state (get_state, set_state) counts from step 0, whatever `start_step` was, so it
    fits any loader of the same `global_batch` and `process_count`. A failing image is a SampleError.
    """
    if global_batch % process_count:
        raise ValueError(f"global_batch {global_batch} does not divide by {process_count} processes; change either")
    rows = global_batch // process_count
    shard = _Shard(rows, process_index, process_count)
    read = _ReadTrainSample(source, shard, seed, size_hw, num_slots, flip_prob)
    samples = grain.MapDataset.range((start_step + num_steps) * rows).map(read)
    iterator = iter(_batches(samples, rows, _stack_train, threads, prefetch))
    grain.experimental.set_next_index(iterator, start_step)
    return iterator


def eval_loader(
    source: Source,
    *,
    size_hw: tuple[int, int],
    batch: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    prefetch: int = 8,
) -> Iterable[EvalBatch]:
    """Each image once, in the source's order, in batches of `batch` images a process; may be iterated again.

    Step t of process i has the images from (t*P + i) * batch on. Every process gives the same number of batches, padded
    and masked, since all hosts must run the same programs. A failing image is a SampleError.
    """
    shard = _Shard(batch, process_index, process_count)
    num_batches = -(-len(source) // (batch * process_count))
    rows = grain.MapDataset.range(num_batches * batch).map(_ReadEvalRow(source, shard, size_hw))
    return _batches(rows, batch, _stack_eval, threads, prefetch)


@dataclasses.dataclass(frozen=True)
class _Shard:
    """One process's rows among all: `rows` neighbours out of every `rows * process_count` positions."""

    rows: int
    process_index: int
    process_count: int

    def __post_init__(self) -> None:
        if self.rows < 1 or not 0 <= self.process_index < self.process_count:
            raise ValueError(
                f"a batch of {self.rows} rows for process {self.process_index} of {self.process_count}; "
                "give at least one row, and a process index below the count"
            )

    def position(self, element: int) -> int:
        step, row = divmod(element, self.rows)
        return (step * self.process_count + self.process_index) * self.rows + row


# The two readers are dataclasses, not closures, so that worker processes can be sent them.
@dataclasses.dataclass(frozen=True)
class _ReadTrainSample:
    source: Source
    shard: _Shard
    seed: int
    size_hw: tuple[int, int]
    num_slots: int
    flip_prob: float

    def __call__(self, element: int) -> TrainSample:
        position = self.shard.position(element)
        index = index_at(position, len(self.source), self.seed)
        rng = sample_rng(position, self.seed)
        with _naming_the_image(self.source, index):
            return train_sample(
                self.source, index, rng, size_hw=self.size_hw, num_slots=self.num_slots, flip_prob=self.flip_prob
            )


@dataclasses.dataclass(frozen=True)
class _ReadEvalRow:
    """One row of each of EvalBatch's arrays."""

    source: Source
    shard: _Shard
    size_hw: tuple[int, int]

    def __call__(self, element: int) -> tuple[Any, ...]:
        index = self.shard.position(element)
        if index >= len(self.source):
            return np.full((*self.size_hw, 3), geometry.PAD_VALUE, np.uint8), 1.0, self.size_hw, False, 0
        with _naming_the_image(self.source, index):
            image = self.source[index].image
            boxed, ratio = geometry.letterbox(image, self.size_hw)
            return boxed, ratio, image.shape[:2], True, index


@contextlib.contextmanager
def _naming_the_image(source: Source, index: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise SampleError(f"image {source.image_id(index)!r} (index {index} of the source): {error}") from error


def _batches(elements: grain.MapDataset, rows: int, stack: Any, threads: int, prefetch: int) -> grain.IterDataset:
    """Samples are made one by one in threads, in order, and stacked by the caller's thread.

    Threads that each made a whole batch would be spread over `threads` batches at once, too far for a small cache of
    decoded images.
    """
    cv2.setNumThreads(0)  # the parallelism is over samples; OpenCV's own threads would only contend with it
    buffer = max(prefetch * rows, threads) if threads and prefetch else 0
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
    return elements.to_iter_dataset(options).batch(rows, batch_fn=stack)


def _stack_train(samples: Sequence[TrainSample]) -> LoadedBatch:
    # A plain dict, since Batch says jax.Array and these stay numpy until the step puts them on its devices.
    arrays: dict[str, Any] = {
        "images": np.stack([sample.image for sample in samples]),
        "gt_boxes": np.stack([sample.boxes for sample in samples]),
        "gt_labels": np.stack([sample.labels for sample in samples]),
        "gt_mask": np.stack([sample.mask for sample in samples]),
    }
    image_ids = tuple(sample.image_id for sample in samples)
    return LoadedBatch(types.Batch(**arrays), image_ids, sum(sample.num_dropped_boxes for sample in samples))


def _stack_eval(rows: Sequence[tuple[Any, ...]]) -> EvalBatch:
    images, ratios, sizes_hw, mask, indices = zip(*rows, strict=True)
    return EvalBatch(
        images=np.stack(images),
        ratios=np.array(ratios, np.float32),
        sizes_hw=np.array(sizes_hw, np.int32),
        mask=np.array(mask, np.bool_),
        indices=np.array(indices, np.int64),
    )
