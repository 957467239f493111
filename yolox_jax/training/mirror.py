"""Keeps a run directory in a bucket equal to the local one, in the background, by whole files.

A run writes to its local folder as any run does: nothing there waits for the network. After each save and evaluation a
thread copies what changed. What counts is what a new machine finds, so the order is: everything that was logged until a
checkpoint was complete, then the checkpoint, its manifest last; then ap.json, which says that evaluations are logged;
then the removal of old checkpoints. `fill` is the way back: it makes the local folder what the bucket holds.
"""

import contextlib
import itertools
import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from yolox_jax import storage
from yolox_jax.errors import NotFoundError
from yolox_jax.storage import Location, Patience
from yolox_jax.training.bucket_claim import REFUSED_SECONDS, BucketClaim
from yolox_jax.training.run_directory import WRITTEN
from yolox_jax.weights import bucket_copy, manifest
from yolox_jax.weights.aps import read_aps
from yolox_jax.weights.checkpoint import FOLDER, SET_ASIDE, complete_steps, read_meta
from yolox_jax.weights.meta import CheckpointError, LogMark, Meta

logger = logging.getLogger("yolox_jax.training")

_NOT_COPIED = ("wandb", "mlruns")  # their services keep them
_NOT_FETCHED = ("tensorboard", "profile")  # the event file is made from metrics.jsonl
_LOG, _APS = "metrics.jsonl", f"{FOLDER}/ap.json"
_MARKER = ".claim"  # in the local folder: the run whose claim it was filled under
_POLL_SECONDS = 0.2
_OUTAGE_SECONDS = 20.0  # without an answer, before a warning
_VANISH_SECONDS = 30.0  # in which a checkpoint is removed from the disk, from its first file to its last
_REPORT_SECONDS = 5.0  # of waiting, before a line says for what


def upload_newer(local: Path, run: Location, claim: BucketClaim) -> None:
    """Copies to the bucket what an earlier run in this local folder saved, and could not copy before it died.

    Only if that run was the last to hold the claim: then nobody has written to the bucket since. Otherwise its
    checkpoints are moved to another folder, which a warning names.
    """
    there = bucket_copy.steps(storage.list_files(run, bucket_copy.PATIENCE))
    newer = [step for step in sorted(complete_steps(local / FOLDER)) if step > max(there, default=-1)]
    for step in [step for step in newer if not _is_whole(local / FOLDER / str(step))]:
        shutil.rmtree(local / FOLDER / str(step))
        newer.remove(step)
    if not newer:
        return
    marker = local / _MARKER
    reason = ""
    if not marker.exists() or marker.read_text() != claim.previous:
        reason = "another run may have written there since"
    elif not _has_log_of(read_meta(local / FOLDER / str(newer[-1])), local / _LOG):
        reason = f"the local {_LOG} is damaged"
    if reason:
        kept = next(path for i in itertools.count(1) if not (path := local / f"kept-{i}").exists())
        (local / FOLDER).rename(kept)
        logger.warning("%s lacks step %d, which is in %s: not copied, since %s", run, newer[-1], kept, reason)
        return
    print(f"{run} lacks step {newer[-1]}, which was saved on this machine: it is copied there first", flush=True)
    marker.write_text(claim.run)
    copies = Mirror(local, run, claim, is_filled=False)
    copies.close()


def note_filled(local: Path, claim: BucketClaim) -> None:
    """Notes that a local folder is what the bucket holds, and that only the run with this claim writes to either."""
    (local / _MARKER).write_text(claim.run)


def _is_whole(checkpoint: Path) -> bool:
    try:
        return manifest.verify(checkpoint) and read_meta(checkpoint) is not None
    except (manifest.ManifestError, CheckpointError):
        return False


def _has_log_of(meta: Meta, log: Path) -> bool:
    """Returns whether a log begins with what it was when a checkpoint was saved."""
    text = log.read_bytes() if log.is_file() else b""
    return meta.log is None or LogMark().after(text[: meta.log.num_bytes]) == meta.log


def fill(local: Path, run: Location) -> set[int]:
    """Makes a local folder what a run directory in a bucket holds. Returns the steps of its checkpoints.

    Files of a checkpoint that are there already and match its manifest are not copied again.
    """
    names = storage.list_files(run, bucket_copy.PATIENCE)
    steps = bucket_copy.steps(names)
    if steps:
        num_bytes = sum(found.size for found in names.values())
        print(
            f"{run} holds {len(steps)} checkpoint(s), {num_bytes / 1e6:.0f} MB, which are copied here first", flush=True
        )
    folder = local / FOLDER
    for path in [local / name for name in WRITTEN if name not in (FOLDER, *_NOT_COPIED)] + [*folder.glob("*")]:
        is_kept = path.parent == folder and path.name in map(str, steps)
        if path.is_dir() and not is_kept:
            shutil.rmtree(path)
        elif not is_kept:
            path.unlink(missing_ok=True)
    for step, files in steps.items():
        bucket_copy.fetch(run / FOLDER / str(step), files, folder / str(step))
    tops = set(WRITTEN) - {FOLDER, *_NOT_COPIED, *_NOT_FETCHED}
    wanted = [name for name in names if name.partition("/")[0] in tops or name == _APS]
    storage.in_parallel(lambda name: bucket_copy.copy_file(run / name, local / name), wanted)
    return set(steps)


class Mirror:
    """Copies a local run directory to a bucket whenever it is asked to, until `close`."""

    def __init__(self, local: Path, run: Location, claim: BucketClaim, is_filled: bool = True):
        """Unless `local` is as `fill` left it, the first copy takes all that the bucket has not as it is here."""
        self._local, self._run, self._claim = local, run, claim
        # Size and time of each file when it was copied.
        self._copied = {name: _size_and_time(local / name) for name in self._changed_files()} if is_filled else {}
        self._saved = {step: _manifest(local / FOLDER / str(step)) for step in complete_steps(local / FOLDER)}
        self._aps: dict[int, float] | None = None  # those of ap.json in the bucket; None if it has no valid one
        with contextlib.suppress(CheckpointError):
            source = local if is_filled else run
            self._aps = read_aps(source / FOLDER) if storage.exists(source / _APS) else None
        if not is_filled:
            self._saved = {step: text for step, text in self._saved.items() if text == self._manifest_there(step)}
        self._remote = set(storage.list_files(run, bucket_copy.PATIENCE))
        self._error: Exception | None = None
        self._awaited: int | None = None  # the step of the last save, which may still be written
        self._asked, self._closing = threading.Event(), threading.Event()
        self._last_answer, self._warned = 0.0, False
        self._patience = Patience(math.inf, self._note_failure, REFUSED_SECONDS)
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def request(self, saving: int | None = None) -> None:
        """Asks for a copy; with `saving`, once the checkpoint of that step, which is being written, is complete."""
        if saving is not None:
            self._awaited = saving
        self._asked.set()

    def wait_for_save(self) -> None:
        """Waits until the checkpoint of the last save, which is complete here, is copied. Raises as `check` does."""
        start, reported = time.monotonic(), False
        while self._awaited is not None and self._awaited not in self._saved:
            self.check()
            time.sleep(_POLL_SECONDS)
            reported = self._report_late(start, reported)

    def _report_late(self, start: float, reported: bool) -> bool:
        """Prints once what is waited for, some seconds after `start`. Returns whether it is printed."""
        if not reported and time.monotonic() - start > _REPORT_SECONDS:
            print(f"copying the last files to {self._run}", flush=True)
            return True
        return reported

    def check(self) -> None:
        """Raises an error of the thread, or that of a lost claim."""
        self._claim.check()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Copies what is left and waits for it, however long the bucket takes. Raises as `check` does."""
        self._closing.set()
        self._asked.set()
        start, reported = time.monotonic(), False
        try:
            while self._thread.is_alive():
                self._thread.join(_POLL_SECONDS)  # in short turns, so that Ctrl-C ends it
                reported = self._report_late(start, reported)
        except KeyboardInterrupt:
            self.abandon()
            raise
        self.check()

    def abandon(self) -> None:
        """Stops copying, as soon as a request has failed or the current files are copied."""
        self._error = self._error or InterruptedError("copying was abandoned")

    def _work(self) -> None:
        try:
            is_last = False
            while not is_last:
                self._asked.wait()
                self._asked.clear()
                while self._awaited not in (None, *self._complete_steps()) and not self._closing.is_set():
                    time.sleep(_POLL_SECONDS)
                is_last = self._closing.is_set()  # asked before the copy: what comes during it is copied next
                self._last_answer = time.monotonic()
                while not self._copy_all():
                    pass  # checkpoints vanished while they were copied: there are newer ones
                if self._warned:
                    logger.warning("%s answers again: everything is copied", self._run)
                    self._warned = False
        except Exception as error:  # noqa: BLE001  (the main thread raises it)
            self._error = self._error or error

    def _copy_all(self) -> bool:
        """Copies what has changed. Returns False if a checkpoint that was there at the beginning vanished."""
        # The order of these two and of the rest matters: what they name must be in the files that are read after them.
        aps = read_aps(self._local / FOLDER)
        steps = self._complete_steps()
        if dropped := (self._aps or {}).keys() - aps.keys():  # the run resumed before these evaluations
            self._write_aps({step: ap for step, ap in (self._aps or {}).items() if step not in dropped})
        for name in self._changed_files():
            if name == _LOG and self._aps is None:  # after what was set aside: a log without it has lost its run
                self._write_aps({})
            self._copy_file(name)
        self._remove(name for name in self._remote if name.startswith("tensorboard/") and not self._has(name))
        is_done = all(map(self._copy_checkpoint, steps))
        if is_done and aps != self._aps:
            self._write_aps(aps)
        if is_done and steps:  # so the bucket always has a whole checkpoint
            for step in bucket_copy.step_folders(self._remote).keys() - set(steps):
                self._remove_checkpoint(step)
        return is_done

    def _manifest_there(self, step: int) -> bytes | None:
        try:
            return storage.read_bytes(self._run / FOLDER / str(step) / manifest.NAME, bucket_copy.PATIENCE)
        except NotFoundError:
            return None

    def _complete_steps(self) -> list[int]:
        return sorted(complete_steps(self._local / FOLDER))

    def _changed_files(self) -> Iterator[str]:
        tops = [self._local / name for name in WRITTEN if name not in (FOLDER, *_NOT_COPIED)]
        # Nothing else in the folder of checkpoints is walked: it has folders that vanish meanwhile.
        aside = [path for kind in SET_ASIDE for path in (self._local / FOLDER).glob(f"*.{kind}-*")]
        for top in sorted([*tops, *aside]):
            for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
                if path.is_file() and ".unfinished" not in path.name:
                    yield path.relative_to(self._local).as_posix()

    def _copy_file(self, name: str) -> None:
        path = self._local / name
        now = _size_and_time(path)
        if self._copied.get(name) == now:
            return
        content = path.read_bytes()
        if name == _LOG:
            content = content[: content.rfind(b"\n") + 1]  # a line may be half-written
        self._write(name, content)
        self._copied[name] = now

    def _copy_checkpoint(self, step: int) -> bool:
        """Copies a checkpoint that the bucket does not have yet. Returns False if it vanished meanwhile.

        The run removes old checkpoints, and while the bucket is away also some that were never copied.
        """
        folder, prefix = self._local / FOLDER / str(step), f"{FOLDER}/{step}/"
        text = _manifest(folder)
        if step in self._saved and text in (self._saved[step], b""):  # without a manifest: an old one, or vanishing
            return True
        try:
            files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
            if not {*manifest.file_names(folder), manifest.NAME} <= set(files):
                raise FileNotFoundError(f"{folder} is not whole")
            self._remove_checkpoint(step)  # half-copied, or damaged and saved again
            for group in bucket_copy.in_order(files):
                if manifest.NAME in group:
                    self._claim.confirm(self._patience)
                storage.in_parallel(lambda name: self._upload(prefix + name), group)
        except FileNotFoundError:
            end = time.monotonic() + _VANISH_SECONDS
            while folder.exists():
                if time.monotonic() > end:
                    raise
                time.sleep(_POLL_SECONDS)
            return False
        self._saved[step] = text
        return True

    def _remove_checkpoint(self, step: int) -> None:
        self._saved.pop(step, None)
        prefix = f"{FOLDER}/{step}/"
        files = [name.removeprefix(prefix) for name in self._remote if name.startswith(prefix)]
        for group in reversed(bucket_copy.in_order(files)):
            self._remove(prefix + name for name in group)
        if isinstance(self._run, Path):  # a mount has folders, which would be left
            shutil.rmtree(self._run / prefix, ignore_errors=True)

    def _has(self, name: str) -> bool:
        return (self._local / name).exists()

    def _remove(self, names: Iterable[str]) -> None:
        def remove(name: str) -> None:
            self._check_before_write()
            storage.remove(self._run / name, self._patience)
            self._remote.discard(name)

        storage.in_parallel(remove, list(names))

    def _check_before_write(self) -> None:
        self.check()
        self._claim.check_before_write(self._patience)

    def _upload(self, name: str) -> None:
        self._check_before_write()
        self._remote.add(name)
        bucket_copy.copy_out(self._local / name, self._run / name, self._patience)
        self._last_answer = time.monotonic()

    def _write(self, name: str, content: bytes) -> None:
        self._check_before_write()
        self._remote.add(name)
        storage.write_bytes(self._run / name, content, self._patience)
        self._last_answer = time.monotonic()

    def _write_aps(self, aps: dict[int, float]) -> None:
        self._write(_APS, json.dumps(aps).encode())
        self._aps = aps

    def _note_failure(self, reason: str) -> None:
        """Called before a request is repeated."""
        self.check()
        if not self._warned and time.monotonic() - self._last_answer > _OUTAGE_SECONDS:
            self._warned = True
            logger.warning("%s: the run continues, and what it saves waits in %s", reason, self._local)


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _manifest(checkpoint: Path) -> bytes:
    try:
        return (checkpoint / manifest.NAME).read_bytes()
    except FileNotFoundError:  # the first file that goes when a checkpoint is removed
        return b""
