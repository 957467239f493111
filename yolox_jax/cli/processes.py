"""The flags of tools without a config that may run as several processes; those with one have config.parallel."""

import contextlib

from absl import flags

from yolox_jax.cli import terminal

_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    "",
    "For several processes: HOST:PORT of process 0; found automatically on TPU pods, Slurm and Open MPI. "
    '"none": one process, even on a cluster.',
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Their number, if coordinator is an address.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this one, from 0.")


def joined() -> contextlib.AbstractContextManager[None]:
    """Joins this process to the others, as the flags say (`terminal.joined`)."""
    return terminal.joined(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, flags="--")
