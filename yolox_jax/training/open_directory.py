"""Opens the run directory that a user names: a folder, a prefix in a bucket, or a folder that needs care.

In a folder a run writes directly. For a bucket, a mount that cannot rename, and a path that orbax would take for a
pattern, it writes to a local folder below the cache folder, which is filled from the run directory first and copied to
it in the background (mirror.py).
"""

import contextlib
import dataclasses
import logging
import math
import random
from collections.abc import Iterator
from pathlib import Path

import jax

from yolox_jax.cache_folder import cache_folder
from yolox_jax.storage import Location, Patience
from yolox_jax.training import hosts, mirror, run_directory
from yolox_jax.training.bucket_claim import REFUSED_SECONDS, BucketClaim
from yolox_jax.training.interruption import Stopped, sigterm_noted
from yolox_jax.training.mirror import Mirror
from yolox_jax.training.resume import check_checkpoints
from yolox_jax.training.run_directory import RunDirectoryError
from yolox_jax.training.slices import Slices, remove_leftovers
from yolox_jax.weights.bucket_copy import local_name

logger = logging.getLogger("yolox_jax.training")


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The directory of one run, in one of its processes."""

    address: Location  # what the user named
    path: Path  # the folder in which this process reads and writes
    mirror: Mirror | None = None  # copies `path` to `address`; process 0 has it
    slices: Slices | None = None  # if there are several processes, each with a `path` of its own

    def copy(self, saving: int | None = None) -> None:
        """Starts copying what has changed; with `saving`, once the checkpoint of that step is complete."""
        if self.mirror is not None:
            self.mirror.request(saving)

    def wait_for_save(self) -> None:
        """Waits until the checkpoint of the last save, which is complete in `path`, is at `address` too."""
        if self.mirror is not None:
            self.mirror.wait_for_save()

    def check(self) -> None:
        """Raises a UserError if copying failed, another run took the directory over, or it was deleted or moved."""
        run_directory.check_there(self.path, self.address)
        if self.mirror is not None:
            self.mirror.check()


@contextlib.contextmanager
def opened(workdir: Location, resume: bool) -> Iterator[RunDirectory]:
    """Claims a run directory for this run; unless `resume`, moves an earlier run in it aside.

    Process 0 does both for all processes. At the end everything is copied, however long that takes.

    Raises:
      RunDirectoryError: another run holds the directory, or it cannot be written, or no checkpoint could be read in it.
      StorageError: the bucket refuses or cannot be reached.
    """
    is_primary = hosts.is_primary()
    if isinstance(workdir, Path) and (fault := run_directory.path_fault(workdir)):
        raise RunDirectoryError(f"{workdir} {fault}", "choose another --workdir")
    obstacle = _obstacle(workdir) if isinstance(workdir, Path) and is_primary else ""
    if isinstance(workdir, Path) and hosts.broadcast_from_primary(not obstacle):
        with run_directory.claim(workdir) if is_primary else contextlib.nullcontext():
            if is_primary:
                _prepare(workdir, resume)
            hosts.barrier("run directory")  # no process reads the directory before this
            yield RunDirectory(workdir, workdir)
        return
    if isinstance(workdir, Path):
        workdir = workdir.absolute()
    local = cache_folder() / "runs" / local_name(workdir)
    run_directory.check_path(local, "set YOLOX_JAX_HOME to another folder, since the run writes to one below it")
    if not is_primary:
        local = local.with_name(f"{local.name}-process-{jax.process_index()}")
    if obstacle:
        logger.warning("%s %s: the run writes to %s, which is copied", workdir, obstacle, local)
    with run_directory.claim(local, named=workdir), contextlib.ExitStack() as opening:
        claim = BucketClaim(workdir) if is_primary else None
        if claim is not None:
            opening.callback(claim.release)
            _prepare(workdir, resume)
            remove_leftovers(workdir)
            if resume:
                mirror.upload_newer(local, workdir, claim)  # before the others read the bucket
        hosts.barrier("run directory")
        mirror.fill(local, workdir)
        if claim is not None:
            mirror.note_filled(local, claim)
        number = hosts.broadcast_from_primary(random.SystemRandom().getrandbits(31))
        patience = Patience(math.inf, refused_seconds=REFUSED_SECONDS)
        slices = Slices(workdir, number, patience) if jax.process_count() > 1 else None
        copies = None if claim is None else Mirror(local, workdir, claim)
        try:
            yield RunDirectory(workdir, local, copies, slices)
        except Stopped:
            _finish(copies)
            raise
        except KeyboardInterrupt:  # ends at once
            if copies is not None:
                copies.abandon()
            raise
        except BaseException:
            _close(copies)
            raise
        else:
            _finish(copies)


def _finish(copies: Mirror | None) -> None:
    """Waits in all processes until process 0 has copied what is left: JAX would end the run after a minute's wait."""
    _close(copies)
    hosts.barrier("everything is copied", hosts.WORK_SECONDS)


def _close(copies: Mirror | None) -> None:
    """Copies what is left. The machine may be taken away meanwhile: what is not copied then is lost."""
    if copies is not None:
        with sigterm_noted("the program ends once everything is copied; Ctrl-C ends it now"):
            copies.close()


def _obstacle(workdir: Path) -> str:
    """Returns why a run cannot write directly to a folder, or nothing if it can."""
    if not run_directory.can_rename(workdir):
        return "is on a file system that cannot rename"
    return run_directory.pattern_fault(workdir)


def _prepare(workdir: Location, resume: bool) -> None:
    """Sets an earlier run aside, or checks that it can be resumed."""
    if resume:
        check_checkpoints(workdir)
    elif earlier := run_directory.set_aside(workdir):
        print(f"moved the earlier run in {workdir} to {earlier}")
