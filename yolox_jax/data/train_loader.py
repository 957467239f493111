"""Reads a source into training batches, starting at any step.

Everything rests on one guarantee: for one data set and one LoaderConfig, the training sample at position p is a pure
function of (seed, p), and the global batch of step t is positions t*B .. t*B + B - 1. So the number of threads, the
number of processes and the step at which a run starts change nothing, and a resumed run needs only its step.
"""

import dataclasses
import functools
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from yolox_jax import types
from yolox_jax.augment.draws import AugmentConfig
from yolox_jax.augment.sample import TrainSample, train_sample
from yolox_jax.data.order import index_at, partner_at, sample_rng
from yolox_jax.data.prefetch import ReadConfig, Shard, batches, position_of, worker_errors
from yolox_jax.data.quiet_grain import grain
from yolox_jax.data.views import chain
from yolox_jax.data.views.naming import naming
from yolox_jax.errors import UserError
from yolox_jax.types import Source

logger = logging.getLogger("yolox_jax.data")

_NUM_FINGERPRINTED = 64  # images, or up to twice as many: few, since some formats read a record for each

ImageIds = tuple[tuple[int | str, ...], ...]  # for each row of a batch: the image's own id, then its partners'


@dataclasses.dataclass(frozen=True)
class LoadedBatch:
    """One process's part of a global batch."""

    batch: types.Batch  # numpy arrays
    image_ids: ImageIds
    num_dropped_boxes: int  # boxes beyond the G slots


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """Everything besides the source that the contents of the batches depend on. configs/base.py has the values."""

    size_hw: tuple[int, int]
    global_batch: int
    seed: int
    num_slots: int  # G
    augment: AugmentConfig
    no_aug_step: int | None  # the first step without mosaic and mixup
    mosaic_window: int  # number of latest positions that partners are drawn from; 0: the whole data set

    def __post_init__(self) -> None:
        for field, value, least in (
            ("batch_size", self.global_batch, 1),
            ("seed", self.seed, 0),
            ("data.max_boxes", self.num_slots, 1),
            ("data.mosaic_window", self.mosaic_window, 0),
        ):
            if value < least:
                raise UserError(f"config.{field} is {value}", f"give {least} or more")


class TrainLoader(Iterator[LoadedBatch]):
    """Iterates over this process's rows of the batches of steps [start_step, num_steps).

    Its state is the next step, plus what the order of the images depends on. Close it, or use it in a `with`, to stop
    its threads. An image that cannot be used raises a SampleError during iteration.
    """

    def __init__(
        self,
        source: Source,
        config: LoaderConfig,
        num_steps: int,
        *,
        read: ReadConfig,
        start_step: int = 0,
        shard: Shard = Shard(),
    ):
        """`source` is the run's data set (chain.as_configured), without the views that only a loader needs."""
        read_by_training = chain.as_read_by_training(source, config.size_hw, read.cache_bytes)
        self._read_sample = _ReadTrainSample(read_by_training, config, shard)
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
        with worker_errors():
            arrays, image_ids, num_dropped_boxes = next(self._iterator)
        self._next_step += 1
        if self._read.workers:  # copies: grain frees its shared memory while the batch may still be in use
            arrays = {name: np.array(array) for name, array in arrays.items()}
        # Any: Batch declares jax.Array, but these stay numpy until they are placed on the devices.
        fields: dict[str, Any] = arrays
        return LoadedBatch(types.Batch(**fields), image_ids, num_dropped_boxes)

    def empty_batch(self) -> types.Batch:
        """Returns zeros with the shapes and dtypes of every batch, to compile a program before a batch is read."""
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
        """Returns a small dict, ready for JSON, for any loader with the same data set, batch size, seed and window."""
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
        """Lists the differences between a state's loader and this one; empty if the order of the images is the same."""
        own = self.get_state()
        return [
            f"{name}: {state.get(name, 'missing')} there, {own[name]} here"
            for name in own
            if name != "next_step" and state.get(name) != own[name]
        ]

    def set_state(self, state: Mapping[str, int]) -> None:
        """Resumes at the next step of a state, without reading anything before it.

        Raises:
          UserError: the state's loader has another order of images than this one; names the differences.
        """
        if differing := self.differences(state):
            raise UserError(
                f"the saved position belongs to another data set or other settings ({'; '.join(differing)})",
                "use the data set and the config that it was saved with",
            )
        self.close()
        self._next_step = state["next_step"]

    def _warn_of_small_cache(self, num_images: int) -> None:
        config, cache_bytes = self._read_sample.config, self._read.cache_bytes
        window = min(config.mosaic_window or num_images, num_images)
        needed = (window + config.global_batch) * config.size_hw[0] * config.size_hw[1] * 3
        if config.augment.mosaic_prob > 0 and config.mosaic_window and needed > cache_bytes:
            logger.warning(
                "config.data.cache_mb is %d, but the mosaic's window needs %d for each image to be decoded only once: "
                "raise it, or lower config.data.mosaic_window",
                *(cache_bytes >> 20, -(-needed >> 20)),
            )

    def close(self) -> None:
        """Stops prefetching; reading another batch starts it again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _fingerprint(source: Source) -> int:
    """Returns a CRC of evenly spread image ids and box counts, to tell data sets apart; independent of their folder."""
    spread = range(0, len(source), max(1, len(source) // _NUM_FINGERPRINTED))
    return zlib.crc32(repr([(source.image_id(index), source.num_boxes(index)) for index in spread]).encode())


@dataclasses.dataclass(frozen=True)  # not a closure, so that it can be pickled for worker processes
class _ReadTrainSample:
    """Makes this process's training sample number `element`."""

    source: Source
    config: LoaderConfig
    shard: Shard

    def __post_init__(self) -> None:
        if self.config.global_batch % self.shard.process_count:
            rows, processes = self.config.global_batch, self.shard.process_count
            raise UserError(f"config.batch_size is {rows}, not a multiple of {processes} processes", "change either")

    @property
    def rows(self) -> int:
        return self.config.global_batch // self.shard.process_count

    def __call__(self, element: int) -> TrainSample:
        config, num_images = self.config, len(self.source)
        position = position_of(element, self.rows, self.shard)
        step = position // config.global_batch
        is_no_aug = config.no_aug_step is not None and step >= config.no_aug_step
        index = index_at(position, num_images, config.seed)
        with naming(self.source, index, "making the sample of"):
            return train_sample(
                self.source,
                index,
                sample_rng(position, config.seed),
                size_hw=config.size_hw,
                num_slots=config.num_slots,
                augment=config.augment.no_aug() if is_no_aug else config.augment,
                draw_partner=functools.partial(partner_at, position, num_images, config.seed, config.mosaic_window),
            )


def _stack(samples: Sequence[TrainSample]) -> tuple[dict[str, np.ndarray], ImageIds, int]:
    """Returns a LoadedBatch's fields as plain containers, whose arrays grain sends through shared memory."""
    arrays = {
        "images": np.stack([sample.image for sample in samples]),
        "gt_boxes": np.stack([sample.boxes for sample in samples]),
        "gt_labels": np.stack([sample.labels for sample in samples]),
        "gt_mask": np.stack([sample.mask for sample in samples]),
    }
    shifts = [sample.hsv_shift for sample in samples if sample.hsv_shift is not None]
    if shifts:  # every sample has one, or none
        arrays["hsv_shift"] = np.stack(shifts)
        arrays["content_hw"] = np.array([sample.content_hw for sample in samples], np.int32)
    image_ids = tuple(sample.image_ids for sample in samples)
    return arrays, image_ids, sum(sample.num_dropped_boxes for sample in samples)
