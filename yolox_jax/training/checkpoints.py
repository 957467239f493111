"""Saves and restores the checkpoints of a run.

weights/checkpoint.py describes and reads their content.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from yolox_jax.errors import UserError
from yolox_jax.storage import Location
from yolox_jax.training import hosts, open_files
from yolox_jax.training.loss_scale import LossScale
from yolox_jax.training.run_directory import DAMAGED, check_path, keep_damaged, write_atomically, writing
from yolox_jax.training.slices import Slices
from yolox_jax.training.state import TrainState
from yolox_jax.weights import manifest
from yolox_jax.weights import meta as meta_item
from yolox_jax.weights.aps import best_step, read_aps
from yolox_jax.weights.checkpoint import FOLDER, complete_steps, explained, first_line, read_meta, verify
from yolox_jax.weights.meta import CheckpointError, Meta, OtherFormatError

logger = logging.getLogger("yolox_jax.training")

_ARRAY_ITEMS = ("ema", "raw", "train")
# With fewer a save fails, and with 16 only after orbax has waited five minutes for its own threads.
_MIN_FILES = 20
_SAVE_SECONDS = 24 * 3600  # a bucket may be away for long; orbax's own limit would end the run after twenty minutes
_LOSS_SCALE = "loss_scale"  # an item of its own, so that the others are the same for every compute dtype


class _Manager(ocp.CheckpointManager):
    """Turns off orbax's preemption check: StopRequest polls JAX's sync point, whose counter allows only one user."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of one run. Writes in the background, and keeps the last few and the best by AP.

    Holds threads and files from the first save until `close`. All processes must make the same calls.
    """

    def __init__(
        self, workdir: Path, keep_last: int = 2, address: Location | None = None, slices: Slices | None = None
    ):
        """Reads the recorded APs.

        Args:
          workdir: the run directory.
          keep_last: how many checkpoints to keep besides the best.
          address: what messages call the run directory, if `workdir` is a copy of it.
          slices: if each process has such a copy, how process 0 gets what the others write.
        Raises:
          UserError: `keep_last` is less than 1, or checkpoints below this path would be lost.
        """
        check_path(workdir, "choose another folder, or open it by open_directory.opened, which writes elsewhere first")
        if keep_last < 1:
            raise UserError(f"config.checkpoint.keep_last is {keep_last}", "give 1 or more")
        self._directory = (workdir / FOLDER).absolute()
        self._shown = (address or workdir.absolute()) / FOLDER  # in messages
        self._keep_last = keep_last
        self._aps: dict[int, float] = {}
        self.aps_damage = ""  # what is wrong with ap.json
        try:
            self._aps = read_aps(self._directory)
        except CheckpointError as error:
            self.aps_damage = first_line(error.__cause__ or error)
        self._unreadable: set[int] = set()
        self._manager: _Manager | None = None
        self._saving = -1  # the step of the last save
        self._slices = slices
        if slices is not None:
            # No list of arrays by process: the others would wait for process 0 to make its folder on their disks.
            handler = ocp.type_handlers.ArrayHandler(array_metadata_store=None)
            ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, oldest first."""
        return sorted(complete_steps(self._directory))

    def path(self, step: int) -> Path:
        """Returns the folder of the checkpoint of this step."""
        return self._directory / str(step)

    def save(self, state: TrainState, meta: Meta) -> None:
        """Starts writing in the background. The arrays are copied before this returns, so the state may be donated.

        Leaves a step that is already saved as it is, and moves an unreadable checkpoint of this step aside.

        Raises:
          CheckpointError: this save or the previous one failed.
          UserError: this process may not open enough files.
        """
        open_files.check_free(_MIN_FILES, "saving a checkpoint")
        # Process 0 decides: on disks of their own, the others have no finished checkpoints. Not orbax, which counts
        # folders of other names and without content.
        is_saved = hosts.broadcast_from_primary(meta.step not in self._unreadable and meta.step in self.steps())
        if not is_saved and hosts.broadcast_from_primary(os.path.lexists(self.path(meta.step))):
            self._set_aside(meta.step, "unreadable")
        arrays = {name: ocp.args.StandardSave(item) for name, item in _items(state).items()}
        items = ocp.args.Composite(**arrays, meta=ocp.args.JsonSave(meta.to_json()))
        with self._write_errors():
            if self._manager is None:
                self._manager = self._open()
            if not is_saved:
                self._manager.wait_until_finished()  # as `save` would; then no other step is being written
                self._saving = meta.step
                # force: after a fallback, orbax would otherwise skip the steps up to the unreadable checkpoint.
                self._manager.save(meta.step, args=items, force=True)

    def _open(self) -> _Manager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_LatestAndBest(self._keep_last, self.aps, self._readable_steps),
            cleanup_tmp_directories=True,  # half-written by a killed run
            async_options=ocp.AsyncOptions(
                timeout_secs=_SAVE_SECONDS,
                post_finalization_callback=self._write_manifest,
                barrier_sync_fn=None if self._slices is None else self._exchange_slices,
            ),
        )
        self._directory.mkdir(parents=True, exist_ok=True)
        return _Manager(self._directory, options=options)

    def _readable_steps(self) -> set[int]:
        """The steps that may be removed for newer ones: orbax takes other folders for checkpoints too."""
        return {*self.steps(), self._saving} - self._unreadable

    def _unfinished(self) -> Path:
        """The folder to which orbax writes the checkpoint that is being saved, and which it then renames."""
        (unfinished,) = self._directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        return unfinished

    def _exchange_slices(self, *, key: str, timeout_ms: int) -> None:
        """A barrier of orbax. At the one after which process 0 merges what all have written, gets it to process 0."""
        assert self._slices is not None
        is_written = "async_write_complete" in key
        if is_written and not hosts.is_primary():
            self._slices.send(self._saving, self._unfinished())
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)
        if is_written and hosts.is_primary():
            self._slices.collect(self._saving, self._unfinished())

    def _write_manifest(self) -> None:
        """Writes the manifest into the folder that orbax renames next. Process 0 runs this, once all have written."""
        unfinished = self._unfinished()
        for item in _ARRAY_ITEMS:
            if not (unfinished / item / "manifest.ocdbt").exists():  # without it the arrays cannot be found
                raise OSError(f"{unfinished / item} lacks the index of its arrays")
        meta_item.read(unfinished)  # what could not be read again is no checkpoint
        manifest.write(unfinished, self._saving)

    def set_aside_after(self, newest: int) -> None:
        """Renames the checkpoints of later steps, which run again."""
        for step in [step for step in self.steps() if step > newest]:
            self._set_aside(step, "unreadable" if step in self._unreadable else "ahead")

    def _set_aside(self, step: int, kind: str) -> None:
        """Renames the folder of a checkpoint; `kind` is one of SET_ASIDE."""
        self.close()
        if hosts.is_primary() or self._slices is not None:
            number = 1 + len(list(self._directory.glob(f"{step}.{kind}-*")))
            with writing(self._directory), contextlib.suppress(FileNotFoundError):  # on a disk of its own
                self.path(step).rename(self._directory / f"{step}.{kind}-{number}")
        hosts.all_true(True)  # a barrier: no process lists the folder before this
        self._unreadable.discard(step)

    def record_ap(self, step: int, ap: float) -> None:
        """Records the AP of a saved step, which decides the best checkpoint, once its save is complete.

        Raises:
          CheckpointError: the save failed.
        """
        self.wait()
        self._aps[step] = ap
        self._write_aps()

    def replace_aps(self, aps: dict[int, float], damage: str) -> None:
        """Records the APs that process 0 gives, and no others. Sets ap.json aside if `damage` says what is wrong.

        ap.json is there from now on, even if no step was evaluated: without it, the checkpoints of a run that has
        logged steps are lost (resume.py).
        """
        aps = {step: ap for step, ap in json.loads(hosts.gather(json.dumps(list(aps.items())).encode())[0])}
        file = self._directory / "ap.json"
        if hosts.is_primary():
            with writing(self._directory, advice="choose another --workdir"):
                self._directory.mkdir(parents=True, exist_ok=True)
            is_there = os.path.lexists(file)
            if damage:
                kept = keep_damaged(file.parent.parent, f"{FOLDER}/ap.json") if is_there else ""
                where = f"set aside as {DAMAGED}/{kept}, and " if kept else ""
                logger.warning("%s: %s; it is %smade again from metrics.jsonl", self._shown / "ap.json", damage, where)
            if damage or not is_there or aps != self._aps:
                write_atomically(file, json.dumps(aps))
        self._aps, self.aps_damage = aps, ""

    def _write_aps(self) -> None:
        if hosts.is_primary():
            write_atomically(self._directory / "ap.json", json.dumps(self._aps))

    def aps(self) -> dict[int, float]:
        """Returns the AP of each step that was evaluated."""
        return self._aps

    def restore_latest(
        self, like: TrainState, check: Callable[[Meta], None], newest: int | None = None
    ) -> tuple[TrainState, Meta] | None:
        """Returns the newest readable state, placed on the devices as `like` is, and its meta; None if none was saved.

        Those of steps after `newest` are not read. Calls `check`, which may raise, with a meta before reading its
        arrays. Warns of a checkpoint that cannot be read, leaves it in place and falls back to the one before it.

        A run may change its compute dtype, since it may move to another card: the loss scale of float16 is then that of
        `like`, or left out, and a line reports it.

        Raises:
          CheckpointError: there are checkpoints, but none can be read.
        """
        bad: list[str] = []
        steps = [step for step in self.steps() if newest is None or step <= newest]
        # Process 0 lists the folder for all: on a network file system the listing of the others may be older.
        while (step := hosts.broadcast_from_primary(steps.pop() if steps else -1)) >= 0:
            path = self._shown / str(step)
            meta, reason = hosts.try_on_all(functools.partial(_verified_meta, self.path(step)), OtherFormatError)
            if meta is not None:
                check(meta)
                restored, reason = hosts.try_on_all(functools.partial(self._restore, step, like), OtherFormatError)
                if restored is not None:
                    self._forget_aps_after(step)
                    return restored, meta
            cause = (isinstance(reason, CheckpointError) and reason.__cause__) or reason
            logger.warning("%s cannot be read (%s); falling back to the checkpoint before it", path, first_line(cause))
            bad.append(str(path))
            self._unreadable.add(step)
        if bad:
            raise CheckpointError(
                f"none of the checkpoints {', '.join(bad)} can be read",
                "restore one from a backup, choose another --workdir, or start over with --config.resume=false",
            )
        self._forget_aps_after(0)
        return None

    def _forget_aps_after(self, step: int) -> None:
        """Drops the APs of steps that run again: one that is saved and then killed must not count as evaluated."""
        if any(each > step for each in self._aps):
            self._aps = {each: ap for each, ap in self._aps.items() if each <= step}
            self._write_aps()

    def _restore(self, step: int, like: TrainState) -> TrainState:
        # Process 0 looks for all, since restoring an item is a joint work.
        is_scaled = bool(hosts.broadcast_from_primary((self._directory / str(step) / _LOSS_SCALE).is_dir()))
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        wanted = _items(abstract if is_scaled else abstract.replace(loss_scale=None))
        items = {name: ocp.args.StandardRestore(item) for name, item in wanted.items()}
        with explained(wanted, self.path(step)), contextlib.closing(self._open()) as manager:
            found = manager.restore(step, args=ocp.args.Composite(**items))
        loss_scale = LossScale(**found[_LOSS_SCALE]) if _LOSS_SCALE in wanted else like.loss_scale
        if is_scaled and like.loss_scale is None:
            print("the run was in float16 until now: its loss scale is left out")
        if like.loss_scale is not None and not is_scaled:
            print("the run was not in float16 until now: it begins with a new loss scale")
        return TrainState(ema=found["ema"], **found["raw"], **found["train"], loss_scale=loss_scale)

    def wait(self) -> None:
        """Waits until the last save is complete. Raises CheckpointError if it failed."""
        if self._manager is not None:
            with self._write_errors():
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is written. Raises CheckpointError if that fails."""
        if self._manager is not None:
            with self._write_errors():
                self._manager.close()
            self._manager = None

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turns an error of the block into a CheckpointError that names the last complete checkpoint."""
        try:
            yield
        except jax.errors.JaxRuntimeError:  # from a barrier: another process is lost
            raise
        except Exception as error:
            steps = self.steps()
            left = f"the last complete one is {self.path(steps[-1])}" if steps else "there is none yet"
            # The error does not always mention a full disk.
            free = shutil.disk_usage(self._directory.parent).free / 1e6
            raise CheckpointError(
                f"a checkpoint could not be written to {self._directory} ({first_line(error)}; {free:.1f} MB are free; "
                f"{left})",
                "free some space or choose another --workdir; the same command resumes from the last checkpoint",
            ) from error


@dataclasses.dataclass
class _LatestAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the last `num_latest` readable checkpoints, the one with the highest AP, and all that is not readable."""

    num_latest: int
    aps: Callable[[], dict[int, float]]
    readable: Callable[[], set[int]]

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: checkpoint_managers.PreservationContext
    ) -> Sequence[bool]:
        readable = self.readable()
        steps = sorted({info.step for info in checkpoints} & readable)
        keep = {*steps[-self.num_latest :], best_step(self.aps(), steps)}
        return [info.step in keep or info.step not in readable for info in checkpoints]


def _items(state: TrainState) -> dict[str, Any]:
    """The arrays of a state, by the checkpoint item that holds them."""
    items = {
        "ema": state.ema,
        "raw": {"params": state.params, "batch_stats": state.batch_stats},
        "train": {"step": state.step, "opt_state": state.opt_state},
    }
    if (scale := state.loss_scale) is not None:
        items[_LOSS_SCALE] = {"value": scale.value, "num_updates": scale.num_updates}
    return items


def _verified_meta(path: Path) -> Meta:
    if hosts.is_primary():  # one process reads every file; the others learn of its result
        verify(path)
    return read_meta(path)
