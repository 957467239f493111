"""Compiling for TPU chips that are not there: libtpu is the compiler, a description stands in for the devices."""

import dataclasses
import importlib.util
import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from yolox_jax.mesh import AXIS
from yolox_jax.tools.plan.chips import Topology

_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class LibtpuMissing(ImportError):
    """libtpu is not installed."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the compiler says of a program that fits, on one chip."""

    text: str
    flops: float
    bytes_accessed: float  # the compiler's own count, whatever the memory; traffic.py says what to think of it
    argument_bytes: int  # as laid out on the chip, padding of tiles included
    temporary_bytes: int
    code_bytes: int
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """What it says of a program that does not fit."""

    needed_bytes: float


def make_mesh(topology: Topology) -> Mesh:
    """A mesh of the chips of a slice, for which programs can be compiled but not run.

    Raises:
      LibtpuMissing: libtpu is not installed.
      ValueError: libtpu knows no such slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise LibtpuMissing('the TPU compiler is not installed: pip install -r requirements.txt "jax[tpu]"')
    # Where there is no TPU, libtpu would ask the cloud's metadata server who it is, and complain at length.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")  # any that it knows; the description is what counts
    # Its lock is for a TPU that two processes might open; here none is opened.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {"chips_per_host_bounds": _chips_per_host(topology)}
    if topology.generation == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device, as jax uses them
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"libtpu makes no slice {topology.name}: {error}") from None
    return Mesh(np.array(description.devices), (AXIS,))


def _chips_per_host(topology: Topology) -> list[int]:
    """Two by two chips as far as the slice goes; a few chips of one host otherwise."""
    sides = (*topology.shape, 1)[:3]
    return [2 if side % 2 == 0 else 1 for side in sides[:2]] + [1]


def compile_for_chip(lowered: jax.stages.Lowered) -> Measured | OutOfMemory:
    """Compiles a program that was lowered for a mesh of `make_mesh`; minutes for a large network."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        shortage = _OUT_OF_MEMORY.search(str(error))
        if shortage is None:
            raise
        return OutOfMemory(float(shortage[1]) * _UNITS[shortage[2]])
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    if cost is None or memory is None:
        raise ValueError("this version of libtpu tells neither cost nor memory of a program: install another")
    return Measured(
        text=compiled.as_text() or "",
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
    )
