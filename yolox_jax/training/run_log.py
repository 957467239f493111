"""What a run tells: a line on the terminal, a record in metrics.jsonl and for TensorBoard, and a stop where training has
broken down."""

import contextlib
import datetime
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax

from yolox_jax.data.train_loader import ImageIds
from yolox_jax.training.compilation import CompileCounter
from yolox_jax.training.run_directory import RunDirectoryError, write_atomically
from yolox_jax.training.tensorboard import EventFile, numbers_of
from yolox_jax.training.trackers import Tracker

logger = logging.getLogger("yolox_jax.training")

_T = TypeVar("_T")

_EVALUATION_EVENTS = ("predictions", "evaluation")  # in the order in which they are written
_LOSS_TERMS = ("loss", "loss_iou", "loss_obj", "loss_cls", "loss_l1")


class TrainingBrokeDown(RuntimeError):
    """Too many steps in a row had a loss or gradient that is not finite."""


class RunLog:
    """Collects what steps answer without waiting for the device, and reports every so many steps."""

    def __init__(
        self,
        workdir: Path,
        *,
        first_step: int = 0,
        first_is_evaluated: bool = False,
        total_steps: int,
        steps_per_epoch: int,
        batch_size: int,
        max_bad_steps: int,
        writes: bool = True,
        tracker: Tracker | None = None,
    ):
        """A run that goes on from `first_step` forgets what was written of later steps, which come again.

        `first_is_evaluated`: whether the evaluation of that state, if it was due, is done. `writes`: whether files are
        written; of several processes one does. `tracker` is told what is written, and closed with this.
        """
        self._workdir = workdir
        path = workdir / "metrics.jsonl"
        kept = _records_before(path, first_step, first_is_evaluated)
        self._file, self._events = None, None
        if writes:
            write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))
            self._file = path.open("a")
            self._events = EventFile(workdir / "tensorboard", kept)
        self._tracker = tracker
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._batch_size = batch_size
        self._max_bad_steps = max_bad_steps
        self._pending: list[tuple[int, dict[str, jax.Array], ImageIds]] = []
        self._judged: list[tuple[int, dict[str, float]]] = []
        self._num_dropped_boxes = max((record.get("num_dropped_boxes", 0) for record in kept), default=0)
        self._bad_in_a_row = 0
        self._num_skipped = sum(record.get("event") == "skipped" for record in kept)
        self._programs = CompileCounter()
        self._since = time.perf_counter()
        self._waited = 0.0

    def time_waits(self, batches: Iterator[_T]) -> Iterator[_T]:
        """The batches, noting how long the device had nothing to do but wait for each.

        Steps run while the host is here already, so a wait counts where the last step was done at its end. Before it, the
        step before that is awaited: the host is never further ahead, and batches do not pile up on the device.
        """
        while True:
            if len(self._pending) > 1:
                jax.block_until_ready(self._pending[-2][1])
            start = time.perf_counter()
            batch = next(batches, None)
            if not self._pending or _is_ready(self._pending[-1][1]):
                self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def add(self, step: int, metrics: dict[str, jax.Array], image_ids: ImageIds) -> None:
        """Keeps the metrics of a step, still on the device, until the next report."""
        self._pending.append((step, metrics, image_ids))

    def warn_of_dropped_boxes(self, step: int, num_boxes: int, num_slots: int) -> None:
        """Counts boxes beyond the slots; says so at the first."""
        if num_boxes and not self._num_dropped_boxes:
            print(f"step {step}: {num_boxes} boxes beyond the {num_slots} slots an image: raise config.data.max_boxes")
        self._num_dropped_boxes += num_boxes

    def judge(self) -> None:
        """Fetches what is pending and judges every step.

        Raises:
          TrainingBrokeDown: max_bad_steps in a row changed nothing, their loss or gradient not being finite.
        """
        fetched = jax.device_get([metrics for _, metrics, _ in self._pending])
        for (step, _, image_ids), metrics in zip(self._pending, fetched, strict=True):
            self._judge(step, metrics, image_ids)
            self._judged.append((step, {name: float(value) for name, value in metrics.items()}))
        self._pending.clear()

    def report(self) -> None:
        """Judges what is pending, and writes and prints the last step's metrics. Raises as `judge` does."""
        self.judge()
        if not self._judged:
            return
        now = time.perf_counter()
        images_per_second = len(self._judged) * self._batch_size / (now - self._since)
        data_wait = self._waited / (now - self._since)
        step, last = self._judged[-1]
        self.write(
            {
                "step": step,
                **last,
                "images_per_second": images_per_second,
                "data_wait": data_wait,
                "num_skipped": self._num_skipped,
                "num_dropped_boxes": self._num_dropped_boxes,
                "num_programs": self._programs.num_programs,
            }
        )
        self._print_progress(step, last, images_per_second, data_wait)
        self._judged.clear()
        self._since = now
        self._waited = 0.0

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        """For other work than training (evaluation, compilation): its time does not count in images a second."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def write(self, record: dict[str, Any]) -> None:
        """One line of metrics.jsonl; json has no NaN, so a number that is not finite is written as a word.

        Raises:
          RunDirectoryError: the disk is full.
        """
        if self._file is None or self._events is None:
            return
        record = {**record, "time": time.time()}
        record = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            self._events.add(record)
        except OSError as error:
            raise RunDirectoryError(
                f"{self._workdir} cannot be written to ({error.strerror}): make room; the same command goes on from the "
                "last checkpoint"
            ) from error
        self._tell(lambda tracker: tracker.add(numbers_of(record), record["step"]))

    def close(self) -> None:
        self._tell(lambda tracker: tracker.close())
        if self._file is not None and self._events is not None:
            with contextlib.suppress(OSError):  # what could not be written was told of by `write`
                self._file.close()
                self._events.close()

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        """Calls the tracker, without which the run can do."""
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:  # noqa: BLE001  (each service has errors of its own)
            logger.warning("the tracker failed and is told no more: %s (metrics.jsonl has all)", error)
            self._tracker = None

    def _judge(self, step: int, metrics: dict[str, Any], image_ids: ImageIds) -> None:
        if not metrics["skipped"]:
            self._bad_in_a_row = 0
            return
        self._bad_in_a_row += 1
        self._num_skipped += 1
        shown = f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']}"
        print(f"step {step}: {shown}: update skipped ({self._bad_in_a_row} in a row). Images {list(image_ids)}")
        self.write({"step": step, "event": "skipped", "image_ids": list(image_ids)})
        if self._bad_in_a_row >= self._max_bad_steps:
            raise TrainingBrokeDown(
                f"{self._bad_in_a_row} steps in a row up to step {step} had a loss or gradient that is not finite "
                f"({shown}). Lower config.lr_per_image, or look at the images named above; config.max_bad_steps sets how "
                "many such steps are borne."
            )

    def _print_progress(self, step: int, metrics: dict[str, float], images_per_second: float, data_wait: float) -> None:
        done = step + 1
        seconds_left = (self._total_steps - done) * self._batch_size / images_per_second
        epoch = step // self._steps_per_epoch + 1
        num_epochs = self._total_steps // self._steps_per_epoch
        terms = " ".join(f"{name} {metrics[name]:.3f}" for name in _LOSS_TERMS)
        print(
            f"step {done}/{self._total_steps} epoch {epoch}/{num_epochs}  {terms}  lr {metrics['learning_rate']:.2e}  "
            f"{images_per_second:.1f} images/s, {data_wait:.1%} waiting for data  ETA {datetime.timedelta(seconds=int(seconds_left))}",
            flush=True,
        )


def _is_ready(metrics: dict[str, jax.Array]) -> bool:
    arrays: list[Any] = [leaf for leaf in metrics.values() if isinstance(leaf, jax.Array)]  # jax's types lack is_ready
    return all(leaf.is_ready() for leaf in arrays)


def _records_before(path: Path, first_step: int, first_is_evaluated: bool) -> list[dict[str, Any]]:
    """What stands of earlier steps; a line that a killed run left unfinished is none."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        unfinished = record.get("event") in _EVALUATION_EVENTS and not first_is_evaluated
        if record["step"] < first_step - unfinished:
            records.append(record)
    return records
