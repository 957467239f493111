"""A source -> the batches of training, from any step on.

The guarantee everything rests on: the training sample at position p is a pure function of (seed, p), and the global
batch of step t is the positions t*B .. t*B + B - 1. So neither the number of threads, nor of processes, nor the step a
run starts at changes what is learnt, and a restored run needs nothing but its step.
"""

import dataclasses
import functools
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import grain
import numpy as np

from yolox_jax import types
from yolox_jax.augment.draws import AugmentConfig
from yolox_jax.augment.sample import TrainSample, train_sample
from yolox_jax.data.order import index_at, partner_at, sample_rng
from yolox_jax.data.prefetch import ReadConfig, Shard, batches, position_of
from yolox_jax.data.views.cache import CachedSource, FittedSource
from yolox_jax.data.views.naming import NamingSource, naming_the_image
from yolox_jax.types import Source

logger = logging.getLogger("yolox_jax.data")

_NUM_FINGERPRINTED = 64  # images; some formats read a record for each

ImageIds = tuple[tuple[int | str, ...], ...]  # of each row of a batch: its own image first, then those mixed with it


@dataclasses.dataclass(frozen=True)
class LoadedBatch:
    """One process's part of a global batch."""

    batch: types.Batch  # numpy arrays
    image_ids: ImageIds
    num_dropped_boxes: int  # boxes beyond the G slots


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """Which batches, in which order. With the source, all that their bytes depend on."""

    size_hw: tuple[int, int]
    global_batch: int
    seed: int
    num_slots: int = 120
    augment: AugmentConfig = AugmentConfig()
    plain_from_step: int | None = None  # the first step without mosaic and mixup
    mosaic_window: int = 256  # positions that partners come from; 0: the whole data set

    def __post_init__(self) -> None:
        if self.mosaic_window < 0 or self.num_slots < 1 or self.seed < 0:
            raise ValueError(
                f"config.data.mosaic_window is {self.mosaic_window}, config.data.max_boxes {self.num_slots} and config.seed "
                f"{self.seed}: give a window and a seed of at least 0 and at least one box"
            )


class TrainLoader(Iterator[LoadedBatch]):
    """This process's rows of the batches of steps [start_step, num_steps). A failing image is a SampleError.

    Its state is the next step, and what tells other batches from these. Close it, or use it in a `with`, to stop its threads.
    """

    def __init__(
        self,
        source: Source,
        config: LoaderConfig,
        num_steps: int,
        *,
        start_step: int = 0,
        shard: Shard = Shard(),
        read: ReadConfig = ReadConfig(),
    ):
        self._read_sample = _ReadTrainSample(
            NamingSource(CachedSource(FittedSource(source, config.size_hw), read.cache_bytes)), config, shard
        )
        self._data_set_crc = _fingerprint(source)
        self._read = read
        self._num_steps = num_steps
        self._next_step = start_step
        self._iterator: grain.DatasetIterator | None = None
        self._warn_of_small_cache(len(source))

    def __next__(self) -> LoadedBatch:
        if self._iterator is None:
            rows = self._read_sample.rows
            samples = grain.MapDataset.range(self._next_step * rows, self._num_steps * rows).map(self._read_sample)
            self._iterator = iter(batches(samples, rows, _stack, self._read))
        arrays, image_ids, num_dropped_boxes = next(self._iterator)
        self._next_step += 1
        if self._read.workers:  # out of grain's shared memory, which does not live as long as a batch may
            arrays = {name: np.array(array) for name, array in arrays.items()}
        # Any, since Batch says jax.Array and these stay numpy until the step puts them on its devices.
        fields: dict[str, Any] = arrays
        return LoadedBatch(types.Batch(**fields), image_ids, num_dropped_boxes)

    def empty_batch(self) -> types.Batch:
        """Zeros of the shapes and types of every batch, for a program to be compiled before one is read."""
        config, rows = self._read_sample.config, self._read_sample.rows
        has_shift = config.augment.hsv is not None
        fields: dict[str, Any] = {
            "images": np.zeros((rows, *config.size_hw, 3), np.uint8),
            "gt_boxes": np.zeros((rows, config.num_slots, 4), np.float32),
            "gt_labels": np.zeros((rows, config.num_slots), np.int32),
            "gt_mask": np.zeros((rows, config.num_slots), np.bool_),
            "hsv_shift": np.zeros((rows, 3), np.float32) if has_shift else None,
            "content_hw": np.zeros((rows, 2), np.int32) if has_shift else None,
        }
        return types.Batch(**fields)

    def get_state(self) -> dict[str, int]:
        """A small json: fits any loader of as many images with the same batch, seed and window, however it reads."""
        config = self._read_sample.config
        return {
            "next_step": self._next_step,
            "num_images": len(self._read_sample.source),
            "data_set_crc": self._data_set_crc,
            "global_batch": config.global_batch,
            "seed": config.seed,
            "mosaic_window": config.mosaic_window,
        }

    def differences(self, state: Mapping[str, int]) -> list[str]:
        """What tells the batches of a state's loader from these; empty where they are the same."""
        own = self.get_state()
        return [
            f"{name}: {state.get(name)} there, {own[name]} here"
            for name in own
            if name != "next_step" and state.get(name) != own[name]
        ]

    def set_state(self, state: Mapping[str, int]) -> None:
        """Goes on where the loader of a state stopped: reads nothing of what came before.

        Raises:
          ValueError: the state's loader gave other batches than this one; names the differences.
        """
        if differing := self.differences(state):
            raise ValueError(f"the saved position belongs to other batches than these ({'; '.join(differing)})")
        self.close()
        self._next_step = state["next_step"]

    def _warn_of_small_cache(self, num_images: int) -> None:
        config, cache_bytes = self._read_sample.config, self._read.cache_bytes
        window = min(config.mosaic_window or num_images, num_images)
        needed = (window + config.global_batch) * config.size_hw[0] * config.size_hw[1] * 3
        if config.augment.mosaic_prob > 0 and config.mosaic_window and needed > cache_bytes:
            logger.warning(
                "config.data.cache_mb is %d; to decode each image once, the mosaic's window needs %d: raise it, or lower "
                "config.data.mosaic_window",
                *(cache_bytes >> 20, -(-needed >> 20)),
            )

    def close(self) -> None:
        """Stops reading ahead; the next batch would start it again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _fingerprint(source: Source) -> int:
    """Tells one data set from another of the same size, wherever it lies: ids and boxes of images spread over it."""
    spread = range(0, len(source), max(1, len(source) // _NUM_FINGERPRINTED))
    return zlib.crc32(repr([(source.image_id(index), source.num_boxes(index)) for index in spread]).encode())


# A dataclass, not a closure, so that worker processes can be sent it.
@dataclasses.dataclass(frozen=True)
class _ReadTrainSample:
    source: Source
    config: LoaderConfig
    shard: Shard

    def __post_init__(self) -> None:
        if self.config.global_batch % self.shard.process_count:
            raise ValueError(
                f"global_batch {self.config.global_batch} does not divide by {self.shard.process_count} processes; "
                "change either"
            )

    @property
    def rows(self) -> int:
        return self.config.global_batch // self.shard.process_count

    def __call__(self, element: int) -> TrainSample:
        config, num_images = self.config, len(self.source)
        position = position_of(element, self.rows, self.shard)
        step = position // config.global_batch
        is_plain = config.plain_from_step is not None and step >= config.plain_from_step
        index = index_at(position, num_images, config.seed)
        with naming_the_image(self.source, index):
            return train_sample(
                self.source,
                index,
                sample_rng(position, config.seed),
                size_hw=config.size_hw,
                num_slots=config.num_slots,
                augment=config.augment.plain() if is_plain else config.augment,
                draw_partner=functools.partial(partner_at, position, num_images, config.seed, config.mosaic_window),
            )


def _stack(samples: Sequence[TrainSample]) -> tuple[dict[str, np.ndarray], ImageIds, int]:
    """The fields of a LoadedBatch as plain containers: what a worker process sends then goes through shared memory."""
    arrays = {
        "images": np.stack([sample.image for sample in samples]),
        "gt_boxes": np.stack([sample.boxes for sample in samples]),
        "gt_labels": np.stack([sample.labels for sample in samples]),
        "gt_mask": np.stack([sample.mask for sample in samples]),
    }
    shifts = [sample.hsv_shift for sample in samples if sample.hsv_shift is not None]
    if shifts:  # all or none have one
        arrays["hsv_shift"] = np.stack(shifts)
        arrays["content_hw"] = np.array([sample.content_hw for sample in samples], np.int32)
    image_ids = tuple(sample.image_ids for sample in samples)
    return arrays, image_ids, sum(sample.num_dropped_boxes for sample in samples)
