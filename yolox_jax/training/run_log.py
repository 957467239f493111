"""Logs a run to the terminal, metrics.jsonl, TensorBoard and a tracker; stops a run that diverges."""

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

from yolox_jax import storage
from yolox_jax.data.train_loader import ImageIds
from yolox_jax.errors import UserError
from yolox_jax.training import hosts
from yolox_jax.training.compilation import CompileCounter
from yolox_jax.training.history import LOG, NEW, History
from yolox_jax.training.run_directory import writing
from yolox_jax.training.tensorboard import EventFile, numbers_of
from yolox_jax.training.trackers import Tracker
from yolox_jax.weights.meta import LogMark

logger = logging.getLogger("yolox_jax.training")

_T = TypeVar("_T")

_LOSS_TERMS = ("loss", "loss_iou", "loss_obj", "loss_cls", "loss_l1")


class TrainingBrokeDown(UserError):
    """Too many steps in a row had a loss or gradient that was not finite."""


class RunLog:
    """Collects the metrics of steps without waiting for the device, and reports them every few steps."""

    def __init__(
        self,
        workdir: Path,
        *,
        history: History = NEW,
        total_steps: int,
        steps_per_epoch: int,
        batch_size: int,
        max_bad_steps: int,
        writes: bool = True,
        prints: bool = True,
        label: str = "",
        tracker: Tracker | None = None,
    ):
        """Drops what an earlier process logged besides `history`: these steps run again.

        Args:
          workdir: the run directory.
          history: what is logged of the steps before the one at which the run starts.
          total_steps: of the whole run.
          steps_per_epoch: for the progress line.
          batch_size: images per step, on all devices.
          max_bad_steps: how many steps in a row with a non-finite loss or gradient end the run.
          writes: whether this process writes files; with several processes, one does.
          prints: whether `report` prints a line of progress.
          label: begins each line on the terminal, if several runs print there.
          tracker: gets the numbers of every record too; `close` closes it.
        Raises:
          UserError: `max_bad_steps` is less than 1.
          RunDirectoryError: the directory cannot be written.
        """
        if max_bad_steps < 1:
            raise UserError(f"config.max_bad_steps is {max_bad_steps}", "give 1 or more")
        path, kept = workdir / LOG, history.records
        self._mark = LogMark().after(history.text)
        self._file, self._events = None, None
        if writes:
            with writing(workdir):
                storage.replace_local(path, history.text)
                self._file = path.open("a")
                self._events = EventFile(workdir / "tensorboard", kept)
        self._workdir, self._path = workdir, path
        self._prints = prints
        self._label = label
        self._tracker = tracker
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._batch_size = batch_size
        self._max_bad_steps = max_bad_steps
        self._pending: list[tuple[int, dict[str, jax.Array], ImageIds]] = []  # may still be computing
        self._checked: list[tuple[int, dict[str, float]]] = []  # since the last report
        self._num_dropped_boxes = max((record.get("num_dropped_boxes", 0) for record in kept), default=0)
        self._num_dropped_here, self._num_slots = 0, 0  # since the last report
        self._num_bad_in_a_row = 0
        self._num_skipped = sum(record.get("event") == "skipped" for record in kept)
        self._num_overflowed = sum(record.get("event") == "overflowed" for record in kept)
        self._programs = CompileCounter()
        self._since = time.perf_counter()
        self._seconds_waited = 0.0

    def time_waits(self, batches: Iterator[_T]) -> Iterator[_T]:
        """Yields the batches, and measures the time that the device was idle because it waited for one.

        The host waits here while the device may still compute the last step, so a wait counts only if that step was
        done when the wait ended. Before each batch, waits for the step before the last one: the host runs at most one
        step ahead, and batches do not pile up on the device.
        """
        while True:
            if len(self._pending) > 1:
                jax.block_until_ready(self._pending[-2][1])
            start = time.perf_counter()
            batch = next(batches, None)
            if not self._pending or _is_ready(self._pending[-1][1]):
                self._seconds_waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def add(self, step: int, metrics: dict[str, jax.Array], image_ids: ImageIds) -> None:
        """Keeps the metrics of a step, still on the device, until the next report."""
        self._pending.append((step, metrics, image_ids))

    def count_dropped_boxes(self, num_boxes: int, num_slots: int) -> None:
        """Counts the boxes that did not fit into the padding slots of this process's images, for the next report."""
        self._num_dropped_here += num_boxes
        self._num_slots = num_slots

    def check_steps(self) -> None:
        """Waits for the metrics of all steps so far and checks that they are finite.

        Raises:
          TrainingBrokeDown: max_bad_steps steps in a row were skipped, since their loss or gradient was not finite.
        """
        fetched = jax.device_get([metrics for _, metrics, _ in self._pending])
        for (step, _, image_ids), metrics in zip(self._pending, fetched, strict=True):
            self._check_step(step, metrics, image_ids)
            self._checked.append((step, {name: float(value) for name, value in metrics.items()}))
        self._pending.clear()

    def report(self) -> dict[str, Any]:
        """Checks all steps so far, then writes, prints and returns the record of the last one, as `write` does.

        Returns nothing if there was no step since the last report. Raises as `check_steps` does.
        """
        self.check_steps()
        if not self._checked:
            return {}
        now = time.perf_counter()
        images_per_second = len(self._checked) * self._batch_size / (now - self._since)
        data_wait = self._seconds_waited / (now - self._since)
        step, last = self._checked[-1]
        self._add_dropped_boxes(step)
        overflows = {"num_overflowed": self._num_overflowed} if "overflowed" in last else {}
        record = {
            "step": step,
            **last,
            "images_per_second": images_per_second,
            "data_wait": data_wait,
            "num_skipped": self._num_skipped,
            **overflows,
            "num_dropped_boxes": self._num_dropped_boxes,
            "num_programs": self._programs.num_programs,
        }
        written = self.write(record)
        if self._prints:
            self._print_progress(step, last, images_per_second, data_wait)
        self._checked.clear()
        self._since = now
        self._seconds_waited = 0.0
        return written

    def _add_dropped_boxes(self, step: int) -> None:
        """Adds the boxes that all processes have left out since the last report, and warns of the first ones."""
        num_boxes = hosts.sum_over_all(self._num_dropped_here)
        if num_boxes and not self._num_dropped_boxes:
            self._print(
                f"up to step {step}: {num_boxes} boxes are left out, since an image has room for {self._num_slots}: "
                "raise config.data.max_boxes"
            )
        self._num_dropped_boxes += num_boxes
        self._num_dropped_here = 0

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        """Leaves the time of the block, such as an evaluation, out of the images per second."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def write(self, record: dict[str, Any]) -> dict[str, Any]:
        """Writes one record to metrics.jsonl, TensorBoard and the tracker. Returns it as it is written.

        It gets the time. JSON has no NaN: a number that is not finite becomes a string.

        Raises:
          RunDirectoryError: the disk is full.
        """
        record = {**record, "time": time.time()}
        record = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        if self._file is None or self._events is None:
            return record
        line = json.dumps(record) + "\n"
        with writing(self._workdir):
            if not self._path.exists():  # what is written to the open file would be lost
                logger.warning("%s was deleted: it begins again at step %d", self._path, record["step"])
                self._file.close()
                self._mark = LogMark()
                self._file = self._path.open("a")
            self._file.write(line)
            self._file.flush()
            self._events.add(record)
        self._mark = self._mark.after(line.encode())
        self._call_tracker(lambda tracker: tracker.add(numbers_of(record), record["step"]))
        return record

    @property
    def mark(self) -> LogMark:
        """What metrics.jsonl is now, in the process that writes it."""
        return self._mark

    def close(self) -> None:
        """Closes the files and the tracker."""
        self._call_tracker(lambda tracker: tracker.close())
        if self._file is not None and self._events is not None:
            with contextlib.suppress(OSError):  # `write` has already reported it
                self._file.close()
                self._events.close()

    def _call_tracker(self, call: Callable[[Tracker], None]) -> None:
        """Calls the tracker. The first error disables it: a run does not end because a service fails."""
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:  # noqa: BLE001  (each service has its own errors)
            logger.warning("tracker disabled after an error: %s (metrics.jsonl is complete)", error)
            self._tracker = None

    def _check_step(self, step: int, metrics: dict[str, Any], image_ids: ImageIds) -> None:
        if not metrics["skipped"]:
            self._num_bad_in_a_row = 0
            return
        if metrics.get("overflowed"):  # float16's range, not a bad step: at most 24 times in a row (loss_scale.py)
            self._num_overflowed += 1
            scale = float(metrics["loss_scale"])
            self._print(
                f"step {step}: the gradients overflow float16: update skipped, loss scale halved to {scale / 2:.0f}"
            )
            self.write({"step": step, "event": "overflowed", "loss_scale": scale})
            return
        self._num_bad_in_a_row += 1
        self._num_skipped += 1
        # Every process is here, since the loss is that of all of them.
        image_ids = tuple(ids for part in hosts.gather(json.dumps(image_ids).encode()) for ids in json.loads(part))
        found = f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']}"
        advice = "lower config.lr_per_image, or look at the images listed above"
        if "loss_scale" in metrics:
            found += f" at loss scale {metrics['loss_scale']:.0f}"
            advice += ", or train with --config.dtype=float32"
        self._print(
            f"step {step}: {found}: update skipped ({self._num_bad_in_a_row} in a row). Images {list(image_ids)}"
        )
        self.write({"step": step, "event": "skipped", "image_ids": list(image_ids)})
        if self._num_bad_in_a_row >= self._max_bad_steps:
            raise TrainingBrokeDown(
                f"{self._label}{self._num_bad_in_a_row} steps in a row up to step {step} had a loss or gradient that "
                f"is not finite ({found})",
                f"{advice} (config.max_bad_steps is the number of such steps that ends a run)",
            )

    def _print_progress(self, step: int, metrics: dict[str, float], images_per_second: float, data_wait: float) -> None:
        done = step + 1
        seconds_left = (self._total_steps - done) * self._batch_size / images_per_second
        epoch = step // self._steps_per_epoch + 1
        num_epochs = self._total_steps // self._steps_per_epoch
        terms = " ".join(f"{name} {metrics[name]:.3f}" for name in _LOSS_TERMS)
        self._print(
            f"step {done}/{self._total_steps} epoch {epoch}/{num_epochs}  {terms}  lr {metrics['learning_rate']:.2e}  "
            f"{images_per_second:.1f} images/s, {data_wait:.1%} waiting for data  "
            f"ETA {datetime.timedelta(seconds=int(seconds_left))}"
        )

    def _print(self, line: str) -> None:
        print(f"{self._label}{line}", flush=True)


def _is_ready(metrics: dict[str, jax.Array]) -> bool:
    arrays: list[Any] = [leaf for leaf in metrics.values() if isinstance(leaf, jax.Array)]  # jax's types lack is_ready
    return all(leaf.is_ready() for leaf in arrays)
