"""Runs several processes as one: connects them, lets them agree on values, and ends all if one is lost."""

import contextlib
import ctypes
import functools
import glob
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax._src import distributed  # its client's barrier has no public name
from jax.experimental import multihost_utils

from yolox_jax.errors import UserError
from yolox_jax.training.interruption import EXIT_CODE

_T = TypeVar("_T")

TPU_FILES = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")  # the device files of a TPU VM
_SINGLE_PROCESS = "none"  # as config.parallel.coordinator: one process, even on a cluster
_HEARTBEAT_SECONDS = 30  # a process silent for this long is lost, and the others end
# How long the first process to finish waits for the last one. Before 0.8.1, JAX waits for its own five minutes.
_SHUTDOWN: dict[str, Any] = {"shutdown_timeout_seconds": 60} if jax.__version_info__ >= (0, 8, 1) else {}
_BARRIER_SECONDS = 3600  # the program of a large network takes minutes to compile
WORK_SECONDS = 7 * 24 * 3600  # for a barrier after work of any length; a lost process is noticed all the same
_LOST = 70  # EX_SOFTWARE of sysexits.h
_LOST_MESSAGE = (
    "\nerror: another process of this run was lost (see its own output), or JAX's runtime failed (see above): "
    "start all processes again with the same command to resume from the last checkpoint, which is complete; what any "
    "other program than train.py has written is incomplete\n"
)
_STATUS = re.compile("(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ")  # of absl::Status

_libc = ctypes.CDLL(None)


class AgreedExit(SystemExit):
    """Ends every process of a run with the same code: all raise it after the same barrier."""


@contextlib.contextmanager
def joined(
    coordinator: str, num_processes: int | None, process_id: int | None, *, flags: str = "--config.parallel."
) -> Iterator[None]:
    """Joins this process to its run, before any other use of JAX. Only process 0 writes to standard output.

    An error ends this process at once: the others would wait for it. They notice within seconds and end too.

    Args:
      coordinator: HOST:PORT of process 0. If empty, it is taken from Slurm, Open MPI or the TPU pod; anywhere else the
        run has one process. "none": one process everywhere.
      num_processes: of the run; None unless `coordinator` is an address.
      process_id: of this process, from 0; None unless `coordinator` is an address.
      flags: how the names of the three begin on the command line, for messages.
    Raises:
      UserError: only some of the three are given, or the processes did not find each other.
    """
    if not _connect(coordinator, num_processes, process_id, flags):
        yield
        return
    if not is_primary():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)
    try:
        yield
    except SystemExit as end:
        if isinstance(end, AgreedExit) or end.code in (None, 0, EXIT_CODE):  # all processes end this way together
            raise
        if not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        exit_at_once(end.code if isinstance(end.code, int) else 1)
    except BaseException as error:  # noqa: BLE001  (the others would wait for this process)
        if _is_of_the_runtime(error):  # a collective noticed that its other end is gone
            print(f"\n{error}{_LOST_MESSAGE}", file=sys.stderr)
            exit_at_once(_LOST)
        traceback.print_exc()
        exit_at_once(1)


def _is_of_the_runtime(error: BaseException) -> bool:
    """Returns whether JAX's runtime failed. An error that it meets while it starts a program is a ValueError."""
    is_status = isinstance(error, ValueError) and _STATUS.match(str(error)) is not None
    return is_status or isinstance(error, jax.errors.JaxRuntimeError)


def is_primary() -> bool:
    """Returns whether this is process 0, which logs and writes results."""
    return jax.process_index() == 0


def broadcast_from_primary(value: int) -> int:
    """Returns process 0's value in every process. All processes must call this."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.array(value)))


def all_true(value: bool) -> bool:
    """Returns whether the value is true in every process. All processes must call this."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.array(value))))


def try_on_all(read: Callable[[], _T], raised: type[Exception]) -> tuple[_T | None, Exception]:
    """Reads in every process. Returns None and the error if any process fails; an error of type `raised` is raised."""
    found: _T | None = None
    reason = Exception("another process could not read its part")
    try:
        found = read()
    except raised:
        raise
    except Exception as error:  # noqa: BLE001  (orbax and its libraries raise all kinds)
        reason = error
    return (found if all_true(found is not None) else None), reason


def sum_over_all(value: int) -> int:
    """Returns the sum of the values of all processes, which must all call this at about the same time."""
    return sum(map(int, _of_all(value)))


def gather(content: bytes) -> list[bytes]:
    """Returns the content of each process, by its number. All processes must call this at about the same time."""
    lengths = [int(length) for length in _of_all(len(content))]
    padded = np.zeros(max(lengths), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    return [row[:length].tobytes() for row, length in zip(_of_all(padded), lengths, strict=True)]


def _of_all(value: int | np.ndarray) -> np.ndarray:
    """The values of all processes along a first axis, which process_allgather leaves out for a single one."""
    value = np.asarray(value)
    return np.asarray(multihost_utils.process_allgather(value)).reshape(jax.process_count(), *value.shape)


def barrier(name: str, seconds: int = _BARRIER_SECONDS) -> None:
    """Waits until every process has called this, `seconds` at most. Each name is used once.

    This is not a collective on the devices, which would time out after half a minute.
    """
    client = distributed.global_state.client
    if client is not None:
        client.wait_at_barrier(f"yolox_jax: {name}", timeout_in_ms=seconds * 1000)


def _connect(coordinator: str, num_processes: int | None, process_id: int | None, flags: str) -> bool:
    """Connects the processes of this run. Returns whether there are several."""
    given = (coordinator not in ("", _SINGLE_PROCESS), num_processes is not None, process_id is not None)
    if any(given) and not all(given):
        raise UserError(
            f"{flags}coordinator is {coordinator!r}, num_processes {num_processes}, process_id {process_id}",
            "give all three (HOST:PORT of process 0, their number, and the number of this one, from 0) or none",
        )
    if not any(given) and (coordinator == _SINGLE_PROCESS or not _is_cluster()):
        return False
    _let_losses_abort()
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator if any(given) else None,
            num_processes=num_processes,
            process_id=process_id,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            **_SHUTDOWN,
        )
    except (RuntimeError, ValueError, OSError) as error:  # from the cluster's own services
        raise UserError(
            f"the processes of this run did not find each other ({str(error).splitlines()[0]})",
            f"give the address of process 0 with {flags}coordinator, or, for a single process, "
            f"{flags}coordinator={_SINGLE_PROCESS}",
        ) from error
    _explain_aborts()
    return jax.process_count() > 1


def exit_at_once(code: int) -> NoReturn:
    """Ends the process at once, waiting for neither threads nor other processes."""
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)


_NOTEBOOKS = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")  # in Colab and Kaggle, which give a user one machine


def _is_cluster() -> bool:
    """Returns whether JAX can find the processes itself: a Slurm or Open MPI job of several, or a TPU VM."""
    tasks = os.environ.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in os.environ else "1"
    tasks = os.environ.get("OMPI_COMM_WORLD_SIZE", tasks)
    has_tpu = any(glob.glob(pattern) for pattern in TPU_FILES)
    is_notebook = any(name in os.environ for name in _NOTEBOOKS)
    return tasks != "1" or (has_tpu and not is_notebook)


def _let_losses_abort() -> None:
    """Lets JAX before 0.9.2 abort too when another process is lost: its own default ends this one with code 1."""
    if jax.__version_info__ < (0, 9, 2):
        runtime = distributed._jax
        runtime.get_distributed_runtime_client = functools.partial(
            runtime.get_distributed_runtime_client, missed_heartbeat_callback=lambda _: os.abort()
        )


def _explain_aborts() -> None:
    """Prints the reason when JAX's runtime ends this process because another is lost: it aborts on a thread of its own.

    The handler is a C function: a Python handler runs on the main thread, which waits for the lost process.
    """
    message = _LOST_MESSAGE.encode()

    def explain(_: int) -> None:
        os.write(2, message)
        os._exit(_LOST)

    # Kept as an attribute, since C keeps only the address.
    _explain_aborts.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(explain)  # type: ignore[attr-defined]
    _libc.signal(signal.SIGABRT, _explain_aborts.handler)  # type: ignore[attr-defined]
