"""Compiles programs for NVIDIA cards without having any: JAX's CUDA plugin compiles for a card that it is told of.

It needs no driver, cuDNN or cuBLAS, but NVIDIA's assembler, linker and library of functions, which two packages have.
"""

import importlib.util
import os
import shutil
from pathlib import Path

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from yolox_jax import compiler_options
from yolox_jax.compiler_options import Options
from yolox_jax.errors import UserError
from yolox_jax.mesh import AXIS
from yolox_jax.tools.plan.cards import Cards, target_config
from yolox_jax.tools.plan.compiling import Compiled, compile_again
from yolox_jax.tools.plan.flops import count_flops

_OLDEST_JAX = (0, 10, 2)  # before: no description of a card, or no peak of memory
_INSTALL = 'pip install -r requirements.txt "jax[cuda13-local]" nvidia-cuda-nvcc nvidia-nvvm nvidia-nvjitlink'
# Without a card nothing is tried out: for some products Triton gets tiles that do not fit (jax 0.10), or none (0.12).
_TRITON_FAILED = ("Couldn't find output tile sizes", "__triton_gemm")


def make_cards_mesh(cards: Cards) -> Mesh:
    """Makes a mesh of cards, for which programs can be compiled but not run.

    Raises:
      UserError: the plugin or one of its tools is not installed, or jax is too old.
    """
    if jax.__version_info__ < _OLDEST_JAX:
        raise UserError(
            f"jax {jax.__version__} does not compile for a GPU that is not there",
            f"install jax {'.'.join(map(str, _OLDEST_JAX))} or later",
        )
    _find_tools()
    description = topologies.get_topology_desc(
        platform="cuda", target_config=target_config(cards.chip), topology=f"1x1x{cards.num_devices}"
    )
    return Mesh(np.array(description.devices), (AXIS,))


def _find_tools() -> None:
    """Puts ptxas of the package nvidia-cuda-nvcc, beside which XLA finds the rest, on the search path."""
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise UserError("the GPU compiler is not installed", _INSTALL)
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations or () if package else ():
        tools = Path(folder) / "cu13" / "bin"
        searched = os.environ.get("PATH", os.defpath)
        if (tools / "ptxas").exists() and str(tools) not in searched.split(os.pathsep):
            os.environ["PATH"] = f"{tools}{os.pathsep}{searched}"
    missing = [tool for tool in ("ptxas", "nvlink") if shutil.which(tool) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)}, which the GPU compiler calls, cannot be found", _INSTALL)


def compile_for_cards(lowered: jax.stages.Lowered, options: Options) -> Compiled:
    """Compiles a program that was lowered for a mesh of `make_cards_mesh`. Takes minutes for a large network."""
    without_triton = False
    options = options | compiler_options.to_read_on_gpu()
    try:
        compiled = compile_again(lowered, options)
    except jax.errors.JaxRuntimeError as error:
        if not any(sign in str(error) for sign in _TRITON_FAILED):
            raise
        without_triton = True
        compiled = compile_again(lowered, options | compiler_options.without_triton())
    memory = compiled.memory_analysis()
    assert memory is not None  # of a version that _OLDEST_JAX lets pass
    return Compiled(
        text=compiled.as_text() or "",
        flops=count_flops(lowered.as_text()),
        bytes_accessed=0.0,  # cost_analysis() has nothing to say of a GPU
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        without_triton=without_triton,
    )
