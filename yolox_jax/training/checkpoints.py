"""Writes and restores the checkpoints of a run, and decides when to save and when to stop early.

What they contain is described in weights/checkpoint.py, which reads them.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from yolox_jax.training import hosts
from yolox_jax.training.run_directory import write_atomically
from yolox_jax.training.state import TrainState
from yolox_jax.weights.checkpoint import (
    FOLDER,
    CheckpointError,
    Meta,
    OtherFormatError,
    best_step,
    complete_steps,
    first_line,
    read_aps,
    read_meta,
)

logger = logging.getLogger("yolox_jax.training")

_T = TypeVar("_T")


class SaveDue:
    """Every so many steps and every so many minutes, whichever is given.

    Of several processes the first one's clock counts; the others ask it every `ask_every` steps.
    """

    def __init__(self, every_steps: int | None, every_minutes: float | None, ask_every: int = 10):
        self._every_steps = every_steps
        self._ask_every = ask_every
        self._every_seconds = None if every_minutes is None else 60 * every_minutes
        self._since = time.monotonic()  # not the wall clock, which may go backwards

    def note_save(self) -> None:
        """Counts the minutes from now."""
        self._since = time.monotonic()

    def __call__(self, step: int) -> bool:
        """Whether the state is to be saved after step `step`, counted from 0."""
        by_steps = self._every_steps is not None and (step + 1) % self._every_steps == 0
        by_time = self._every_seconds is not None and time.monotonic() - self._since >= self._every_seconds
        if jax.process_count() > 1:
            by_time = (step + 1) % self._ask_every == 0 and bool(hosts.from_primary(by_time))
        return by_steps or by_time


class _Manager(ocp.CheckpointManager):
    """Leaves jax's preemption service to StopRequest: it has one counter, which orbax would feed other numbers."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of one run: written in the background, the last few and the best by AP kept.

    Threads and files are held from the first save to `close`. Of several processes all must make the same calls.
    """

    def __init__(self, workdir: Path, keep_last: int = 2):
        self._directory = (workdir / FOLDER).absolute()
        self._keep_last = keep_last
        self._aps = read_aps(self._directory)
        self._unreadable: set[int] = set()
        self._manager: _Manager | None = None

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, the oldest first."""
        return sorted(complete_steps(self._directory))

    def save(self, state: TrainState, meta: Meta) -> None:
        """Starts to write; the arrays are copied before this returns, so the state may be donated.

        A step that is saved already is left as it is; one that could not be read is set aside. Raises CheckpointError
        where this or the last save failed.
        """
        if meta.step in self._unreadable:
            self._set_aside(meta.step)
        if self._manager is None:
            self._manager = self._open()
        manager = self._manager
        if meta.step in manager.all_steps():
            return
        arrays = {name: ocp.args.StandardSave(item) for name, item in _items(state).items()}
        items = ocp.args.Composite(**arrays, meta=ocp.args.JsonSave(meta.to_json()))
        # force: after a fallback, steps before the unreadable one are saved too.
        self._explain(lambda: manager.save(meta.step, args=items, force=True))

    def _open(self) -> _Manager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_LatestAndBest(self._keep_last, self.aps, self._unreadable),
            cleanup_tmp_directories=True,  # what a killed run left half-written
        )
        return _Manager(self._directory, options=options)

    def _set_aside(self, step: int) -> None:
        """Gives the folder of an unreadable checkpoint another name."""
        self.close()
        if hosts.is_primary():
            number = 1 + len(list(self._directory.glob(f"{step}.unreadable-*")))
            (self._directory / str(step)).rename(self._directory / f"{step}.unreadable-{number}")
        hosts.everywhere(True)  # nobody looks before
        self._unreadable.remove(step)

    def record_ap(self, step: int, ap: float) -> None:
        """Notes the AP of a saved step, by which the best one is kept."""
        self._aps[step] = ap
        if hosts.is_primary():
            write_atomically(self._directory / "ap.json", json.dumps(self._aps))

    def aps(self) -> dict[int, float]:
        """The AP of each step that was evaluated."""
        return self._aps

    def restore_latest(self, like: TrainState, check: Callable[[Meta], None]) -> tuple[TrainState, Meta] | None:
        """The newest readable state, laid out on the devices as `like` is, and its meta; None where nothing was saved.

        `check` is called with each meta before its arrays are read, and may raise. A checkpoint that cannot be read is
        warned of and stays where it is; the one before is taken.

        Raises:
          CheckpointError: there are checkpoints, but none can be read.
        """
        bad: list[str] = []
        steps = self.steps()
        while (step := hosts.from_primary(steps.pop() if steps else -1)) >= 0:  # a listing may lag behind on the others
            path = self._directory / str(step)
            meta, reason = _try_everywhere(functools.partial(read_meta, path))
            if meta is not None:
                check(meta)
                restored, reason = _try_everywhere(functools.partial(self._restore, step, like))
                if restored is not None:
                    return restored, meta
            logger.warning("%s cannot be read (%s); the checkpoint before it is tried", path, first_line(reason))
            bad.append(str(path))
            self._unreadable.add(step)
        if bad:
            raise CheckpointError(
                f"none of the checkpoints {', '.join(bad)} can be read: restore one from a copy, choose another --workdir, "
                "or start again with --config.resume=false"
            )
        return None

    def _restore(self, step: int, like: TrainState) -> TrainState:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = {name: ocp.args.StandardRestore(item) for name, item in _items(abstract).items()}
        with contextlib.closing(self._open()) as manager:
            found = manager.restore(step, args=ocp.args.Composite(**items))
        return TrainState(ema=found["ema"], **found["raw"], **found["train"])

    def close(self) -> None:
        """Waits until all is written. Raises CheckpointError where it could not be."""
        if self._manager is not None:
            self._explain(self._manager.close)
            self._manager = None

    def _explain(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except jax.errors.JaxRuntimeError:  # of a barrier: another process is lost
            raise
        except Exception as error:
            steps = self.steps()
            left = f"the last whole one is {self._directory / str(steps[-1])}" if steps else "there is none yet"
            # The libraries do not always say that the disk is full.
            free = shutil.disk_usage(self._directory).free / 1e6
            raise CheckpointError(
                f"a checkpoint could not be written to {self._directory} ({first_line(error)}), where {free:.1f} MB are free; "
                f"{left}. Make room or choose another --workdir; the same command goes on from there"
            ) from error


@dataclasses.dataclass
class _LatestAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the last `num_latest` checkpoints, the one of the highest AP, and what cannot be read."""

    num_latest: int
    aps: Callable[[], dict[int, float]]
    unreadable: Collection[int]

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: checkpoint_managers.PreservationContext
    ) -> Sequence[bool]:
        steps = sorted({info.step for info in checkpoints} - set(self.unreadable))
        keep = {*steps[-self.num_latest :], best_step(self.aps(), steps), *self.unreadable}
        return [info.step in keep for info in checkpoints]


def _items(state: TrainState) -> dict[str, Any]:
    """A state's arrays by the item that holds them."""
    return {
        "ema": state.ema,
        "raw": {"params": state.params, "batch_stats": state.batch_stats},
        "train": {"step": state.step, "opt_state": state.opt_state},
    }


def _try_everywhere(read: Callable[[], _T]) -> tuple[_T | None, Exception]:
    """What was read, where every process could; otherwise None, and the error. One of another format is raised."""
    found: _T | None = None
    reason = Exception("another process could not read its part")
    try:
        found = read()
    except OtherFormatError:
        raise
    except Exception as error:  # noqa: BLE001  (orbax and what is below it raise all kinds)
        reason = error
    return (found if hosts.everywhere(found is not None) else None), reason


def has_stalled(ap_by_step: Mapping[int, float], patience: int | None, step: int) -> bool:
    """Whether, up to `step`, the last `patience` evaluations were all no better than one before them; None: never.

    Depends on the recorded APs alone, so that a run that goes on answers as the one left alone.
    """
    if patience is None:
        return False
    aps = [ap for evaluated, ap in sorted(ap_by_step.items()) if evaluated <= step]
    return len(aps) > patience and max(aps[-patience:]) <= max(aps[:-patience])
