"""How elements are read ahead: shared out to processes, made in threads or worker processes, stacked into batches."""

import dataclasses
import signal
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import grain
from absl import flags

# The parallelism is over samples; OpenCV's own threads would only contend with it. For every process, workers too.
cv2.setNumThreads(0)


@dataclasses.dataclass(frozen=True)
class Shard:
    """This process among all: of each global batch, process i of P has rows [i*B/P, (i+1)*B/P)."""

    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.process_index < self.process_count:
            raise ValueError(f"process {self.process_index} of {self.process_count}; the index must be below the count")


@dataclasses.dataclass(frozen=True)
class ReadConfig:
    """How the batches are read ahead. Changes their speed, never their bytes."""

    threads: int = 2  # a process; 0 reads in the caller's
    workers: int = 0  # processes that read; 0: threads of this one alone
    prefetch: int = 4  # batches
    cache_bytes: int = 1 << 30  # of decoded images, a process

    def __post_init__(self) -> None:
        if min(self.threads, self.workers, self.prefetch, self.cache_bytes) < 0:
            raise ValueError(f"{self}, from config.data.threads, workers, prefetch and cache_mb: none may be below 0")


def position_of(element: int, rows: int, shard: Shard) -> int:
    """Where a process's n-th sample stands among those of all."""
    step, row = divmod(element, rows)
    return (step * shard.process_count + shard.process_index) * rows + row


def batches(
    elements: grain.MapDataset, rows: int, stack: Callable[[Sequence[Any]], Any], read: ReadConfig
) -> grain.IterDataset:
    """Threads make samples one by one, in order, and the caller's thread stacks them.

    Threads that each made a whole batch would be spread over `threads` batches at once, too far for a small cache of
    decoded images.
    """
    if read.workers:
        if not flags.FLAGS.is_parsed():  # outside of a program; grain's worker processes ask for its flags
            flags.FLAGS.mark_as_parsed()
        # Workers make whole batches, in turn: grain deals elements out, so a batch must be one.
        options = grain.ReadOptions(num_threads=read.threads, prefetch_buffer_size=read.threads)
        of_worker = grain.multiprocessing.MultiprocessingOptions(
            num_workers=read.workers, per_worker_buffer_size=max(1, read.prefetch // read.workers)
        )
        return elements.batch(rows, batch_fn=stack).to_iter_dataset(options).mp_prefetch(of_worker, _ignore_ctrl_c)
    buffer = max(read.prefetch * rows, read.threads) if read.threads and read.prefetch else 0
    options = grain.ReadOptions(num_threads=read.threads, prefetch_buffer_size=buffer)
    return elements.to_iter_dataset(options).batch(rows, batch_fn=stack)


def _ignore_ctrl_c(worker_index: int, worker_count: int) -> None:
    """A terminal sends Ctrl-C to all; the main process decides, and then stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
