"""Prefetches batches: makes the samples of this process's rows in threads or worker processes, and stacks them."""

import contextlib
import dataclasses
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import shared_memory
from typing import Any

import cv2
from absl import flags

from yolox_jax.data.quiet_grain import grain
from yolox_jax.errors import UserError

# Samples are made in parallel already, and OpenCV's own threads would only compete with that. Worker processes import
# this module too.
cv2.setNumThreads(0)


@dataclasses.dataclass(frozen=True)
class Shard:
    """The rows of each global batch that one process reads: process i of P reads rows [i*B/P, (i+1)*B/P) of B."""

    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.process_index < self.process_count:
            raise ValueError(f"process {self.process_index} of {self.process_count}; the index must be below the count")


@dataclasses.dataclass(frozen=True)
class ReadConfig:
    """The resources for reading batches. They change the speed, never the contents of a batch."""

    threads: int  # threads that decode and augment, in each process; 0 uses the caller's thread
    workers: int  # worker processes; 0 uses only the threads of this process
    prefetch: int  # batches to make before they are needed
    cache_bytes: int  # for decoded images, in each process

    def __post_init__(self) -> None:
        for field, value in (
            ("threads", self.threads),
            ("workers", self.workers),
            ("prefetch", self.prefetch),
            ("cache_mb", self.cache_bytes >> 20),
        ):
            if value < 0:
                raise UserError(f"config.data.{field} is {value}", "give 0 or more")


def position_of(element: int, rows: int, shard: Shard) -> int:
    """Returns the position, in the sequence of all processes' samples, of this process's sample number `element`."""
    step, row = divmod(element, rows)
    return (step * shard.process_count + shard.process_index) * rows + row


def batches(
    elements: grain.MapDataset, rows: int, stack: Callable[[Sequence[Any]], Any], read: ReadConfig
) -> grain.IterDataset:
    """Makes samples one by one, in order, in threads, and stacks `rows` of them in the caller's thread.

    If each thread made a whole batch, `threads` batches would be in progress at once, which needs a larger cache of
    decoded images. Worker processes do make whole batches: grain gives them the elements of a data set in turn,
    so an element has to be a batch there.
    """
    if read.workers:
        _check_shared_memory()
        if not flags.FLAGS.is_parsed():  # grain's worker processes read absl's flags, even if no absl program runs
            flags.FLAGS.mark_as_parsed()
        # Each thread makes a whole batch: a buffer of fewer batches would leave threads idle.
        options = grain.ReadOptions(num_threads=read.threads, prefetch_buffer_size=read.threads)
        multiprocessing = grain.multiprocessing.MultiprocessingOptions(
            num_workers=read.workers, per_worker_buffer_size=max(1, read.prefetch // read.workers)
        )
        dataset = elements.batch(rows, batch_fn=stack).to_iter_dataset(options)
        return dataset.mp_prefetch(multiprocessing, _ignore_ctrl_c)
    buffer = max(read.prefetch * rows, read.threads) if read.threads and read.prefetch else 0
    options = grain.ReadOptions(num_threads=read.threads, prefetch_buffer_size=buffer)
    return elements.to_iter_dataset(options).batch(rows, batch_fn=stack)


_WITHOUT_WORKERS = (
    "give the container more shared memory (docker run --shm-size=8g), or use threads alone (--config.data.workers=0)"
)


def _check_shared_memory() -> None:
    try:
        multiprocessing.Lock()
        block = shared_memory.SharedMemory(create=True, size=1)
    except OSError as error:
        raise UserError(
            f"config.data.workers needs shared memory, but /dev/shm cannot be written ({error.strerror})",
            _WITHOUT_WORKERS,
        ) from error
    block.close()
    block.unlink()


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Turns grain's error about a worker process that was killed, such as by a full /dev/shm, into a UserError."""
    try:
        yield
    except RuntimeError as error:
        if "Worker process was terminated unexpectedly" not in str(error):
            raise
        _, _, code = str(error).partition("exit code ")
        how = {-signal.SIGBUS: "/dev/shm is full", -signal.SIGKILL: "often because memory ran out"}
        number = int(code.split(".")[0])
        raise UserError(
            f"a worker process of config.data.workers was killed (exit code {number}, {how.get(number, 'see above')})",
            _WITHOUT_WORKERS,
        ) from error


def _ignore_ctrl_c(worker_index: int, worker_count: int) -> None:
    """Ignores Ctrl-C, which a terminal sends to every process: the main process handles it and stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
