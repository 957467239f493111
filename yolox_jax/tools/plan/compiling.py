"""Compiles programs for TPU chips without having any: libtpu is the compiler, a description replaces the devices."""

import dataclasses
import importlib.util
import os
import re
import warnings
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from yolox_jax.compiler_options import Options
from yolox_jax.errors import UserError
from yolox_jax.mesh import AXIS
from yolox_jax.tools.plan.chips import Topology

_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program that fits: its text, and the compiler's figures for one chip."""

    text: str
    flops: float
    bytes_accessed: float  # in any memory, by the compiler's count: see traffic.py. 0: it has none (GPUs)
    argument_bytes: int  # as laid out on the chip, including the padding of tiles
    temporary_bytes: int
    code_bytes: int
    peak_bytes: int
    without_triton: bool = False  # on a GPU: cuBLAS has all matrix products, since Triton could not compile one


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """A program that does not fit into the chip's memory."""

    needed_bytes: float


def make_topology_mesh(topology: Topology) -> Mesh:
    """Makes a mesh of a slice's chips, for which programs can be compiled but not run.

    Raises:
      UserError: libtpu is not installed, or does not know such a slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("the TPU compiler is not installed", 'pip install -r requirements.txt "jax[tpu]"')
    # Without these, libtpu looks for a TPU on a cloud machine, and logs errors at length.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")  # any valid type; the description decides
    # Its lock prevents two processes from opening the same TPU; none is opened here.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options: dict[str, Any] = {"chips_per_host_bounds": _chips_per_host(topology)}
    if topology.generation == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip are one device, as in JAX
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"libtpu does not know the slice {topology.name} ({reason})", "give another topology"
        ) from error
    return Mesh(np.array(description.devices), (AXIS,))


def _chips_per_host(topology: Topology) -> list[int]:
    """2 x 2 chips per host along axes of even length, else 1."""
    sides = (*topology.shape, 1)[:3]
    return [2 if side % 2 == 0 else 1 for side in sides[:2]] + [1]


def compile_for_chip(lowered: jax.stages.Lowered) -> Compiled | OutOfMemory:
    """Compiles a program that was lowered for a mesh of `make_topology_mesh`. Takes minutes for a large network."""
    try:
        compiled = compile_again(lowered, {})
    except jax.errors.JaxRuntimeError as error:
        shortage = _OUT_OF_MEMORY.search(str(error))
        if shortage is None:
            raise
        return OutOfMemory(float(shortage[1]) * _UNITS[shortage[2]])
    return figures_of(compiled)


def compile_again(lowered: jax.stages.Lowered, options: Options) -> jax.stages.Compiled:
    """Compiles, though a compilation cache set in the environment may have it: without a device, it cannot be read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry", UserWarning)
        return lowered.compile(options)


def figures_of(compiled: jax.stages.Compiled) -> Compiled:
    """Returns what libtpu says of a program that was compiled for TPU chips.

    Raises:
      UserError: this version of libtpu says nothing.
    """
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    if cost is None or memory is None:
        raise UserError("this version of libtpu reports no cost or memory of programs", "install another version")
    return Compiled(
        text=compiled.as_text() or "",
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
    )
