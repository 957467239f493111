"""Several processes as one run: how they find each other, agree, and end when one of them is lost."""

import contextlib
import ctypes
import glob
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax
import numpy as np
from jax._src import distributed  # its client's barrier has no public name
from jax.experimental import multihost_utils

from yolox_jax.training.interruption import EXIT_CODE

NO_COORDINATOR = "none"
_HEARTBEAT_SECONDS = 30  # a process silent for so long is lost, and the others end
_SHUTDOWN_SECONDS = 60  # at the end the first waits so long for the last
_MEETING_SECONDS = 3600  # a program of a large network is compiled for minutes
_LOST = 70  # EX_SOFTWARE of sysexits.h
_LOST_WORD = (
    "\nerror: another process of this run was lost (its own output says why), or jax's runtime failed (as it says above). "
    "The last checkpoint is whole: start all processes again by the same command to go on from it\n"
)

_libc = ctypes.CDLL(None)


@contextlib.contextmanager
def joined(coordinator: str, num_processes: int | None, process_id: int | None) -> Iterator[None]:
    """Makes this process one of its run, before any other use of jax; only process 0 speaks on standard output.

    An error ends this process at once, without waiting for the others, who would wait for it: they notice within
    seconds and end too.

    Args:
      coordinator: HOST:PORT of process 0; where empty, a Slurm or Open MPI job or a TPU pod says it, and elsewhere there
        is one process; "none": one process wherever this runs.
      num_processes: of the run; None with the coordinator.
      process_id: of this one, from 0; None with the coordinator.
    Raises:
      ValueError: some but not all of the three are given, or the processes did not find each other.
    """
    if not _connect(coordinator, num_processes, process_id):
        yield
        return
    if not is_primary():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)
    try:
        yield
    except SystemExit as end:
        if end.code in (None, 0, EXIT_CODE):  # which all processes reach together
            raise
        if not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        leave(end.code if isinstance(end.code, int) else 1)
    except jax.errors.JaxRuntimeError as error:  # a collective that lost its other end, where that is noticed at once
        print(f"\n{error}{_LOST_WORD}", file=sys.stderr)
        leave(_LOST)
    except BaseException:  # noqa: BLE001  (whatever it is, the others would wait for this process)
        traceback.print_exc()
        leave(1)


def is_primary() -> bool:
    """Whether this is the process that logs and writes results."""
    return jax.process_index() == 0


def from_primary(value: int) -> int:
    """Process 0's value, for all; every process must call it."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.array(value)))


def everywhere(value: bool) -> bool:
    """Whether the value is true in every process; every process must call it."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.array(value))))


def barrier(name: str) -> None:
    """Waits until every process is here; a name serves once. Costs no collective, whose patience is half a minute."""
    client = distributed.global_state.client
    if client is not None:
        client.wait_at_barrier(f"yolox_jax: {name}", timeout_in_ms=_MEETING_SECONDS * 1000)


def _connect(coordinator: str, num_processes: int | None, process_id: int | None) -> bool:
    given = (coordinator not in ("", NO_COORDINATOR), num_processes is not None, process_id is not None)
    if any(given) and not all(given):
        raise ValueError(
            f"config.parallel.coordinator is {coordinator!r}, num_processes {num_processes}, process_id {process_id}: "
            "give all three (HOST:PORT of process 0, how many, and which of them this is, from 0) or none"
        )
    if not any(given) and (coordinator == NO_COORDINATOR or not _is_cluster()):
        return False
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator if any(given) else None,
            num_processes=num_processes,
            process_id=process_id,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError, OSError) as error:  # whatever the cluster's own services answer
        raise ValueError(
            f"the processes of this run did not find each other ({str(error).splitlines()[0]}). Name process 0's address by "
            f"--config.parallel.coordinator, or say --config.parallel.coordinator={NO_COORDINATOR} where there is one process"
        ) from error
    _explain_aborts()
    return jax.process_count() > 1


def leave(code: int) -> NoReturn:
    """Ends the process at once, waiting for neither threads nor other processes."""
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)


def _is_cluster() -> bool:
    """Whether jax can be asked who the processes are: a Slurm or Open MPI job of several, or a TPU VM."""
    tasks = os.environ.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in os.environ else "1"
    tasks = os.environ.get("OMPI_COMM_WORLD_SIZE", tasks)
    has_tpu = bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
    return tasks != "1" or (has_tpu and "COLAB_RELEASE_TAG" not in os.environ)  # Colab's TPU is one machine's


def _explain_aborts() -> None:
    """Says why, where jax's runtime ends this process because another is lost: it aborts from a thread of its own.

    A handler of Python's would wait for the main thread, and that one waits for the lost process. So this is C's.
    """
    word = _LOST_WORD.encode()

    def explain(_: int) -> None:
        os.write(2, word)
        os._exit(_LOST)

    # Kept for as long as the process lives, as C keeps only the address.
    _explain_aborts.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(explain)  # type: ignore[attr-defined]
    _libc.signal(signal.SIGABRT, _explain_aborts.handler)  # type: ignore[attr-defined]
