"""The options that XLA gets for a program, by platform. jaxlib ends the process at a name it does not know."""

import contextlib
import math
import os
import platform as host
import sys
from typing import Literal

import jaxlib.version
from jax._src import config as jax_config  # jax has no public name for a setting of one thread

from yolox_jax.errors import UserError

Options = dict[str, str | bool]
CpuKernels = Literal["onednn", "xla"]  # what computes convolutions and matrix products on a CPU

_MANY_CALLS = 20_000  # ours: faster steps have repaid compiling many sizes at a few starts (benchmarks/NOTES.md)
_FIRST_WITH_ONEDNN, _FIRST_UNKNOWN = (0, 11), (0, 13)  # jaxlib; a later one may call its experimental options otherwise


def choose_cpu_kernels(choice: str, platform: str, num_calls: int) -> CpuKernels:
    """Chooses what computes the convolutions of a program that runs `num_calls` times; "xla" unless it is for a CPU.

    "auto" is oneDNN if this jaxlib has it and the program runs many times. JAX cannot keep such a program in its
    compilation cache, so every start compiles it again. The network must be made for it too (models/yolox.py).

    Raises:
      UserError: an unknown choice, or oneDNN for a CPU, which this jaxlib does not have.
    """
    if choice not in ("auto", "onednn", "xla"):
        raise UserError(f"config.cpu_kernels is {choice!r}", "choose one of auto, onednn, xla")
    if platform != "cpu":
        return "xla"
    has_onednn = _has_onednn()
    if choice == "onednn" and not has_onednn:
        raise UserError(
            f"config.cpu_kernels is 'onednn', which jaxlib {jaxlib.version.__version__} is not known to have here",
            "choose auto, or install jaxlib 0.11 or 0.12 on Linux on x86-64",
        )
    takes_onednn = choice == "onednn" or (choice == "auto" and has_onednn and num_calls >= _MANY_CALLS)
    return "onednn" if takes_onednn else "xla"


def _has_onednn() -> bool:
    is_built_for = sys.platform == "linux" and host.machine() == "x86_64"
    return is_built_for and _FIRST_WITH_ONEDNN <= jaxlib.version.__version_info__ < _FIRST_UNKNOWN


def uncached(cpu_kernels: CpuKernels) -> contextlib.AbstractContextManager[None]:
    """Keeps JAX from writing a program with oneDNN's kernels to its compilation cache: it would fail, and warn."""
    is_cached = cpu_kernels == "xla"
    return contextlib.nullcontext() if is_cached else jax_config.persistent_cache_min_compile_time_secs(math.inf)


def for_training_step(platform: str, cpu_kernels: CpuKernels = "xla") -> Options:
    """On a GPU, asks for a repeatable step. On a CPU, level 2 of LLVM is faster than level 3 (benchmarks/NOTES.md).

    What XLA_FLAGS says about any of them stays.
    """
    if platform != "cpu":
        return repeatable(platform)
    return _unless_in_flags({"xla_backend_optimization_level": "2"}) | for_cpu_kernels(cpu_kernels)


def for_cpu_kernels(cpu_kernels: CpuKernels) -> Options:
    """Options with which a program on a CPU gets its convolutions and products from oneDNN.

    Otherwise YNNPACK would take them first; it keeps the reductions. What XLA_FLAGS says about either stays.
    """
    if cpu_kernels == "xla" or not _has_onednn():
        return {}
    return _unless_in_flags(
        {
            "xla_cpu_experimental_onednn_custom_call": True,
            "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
        }
    )


def for_detection(platform: str, cpu_kernels: CpuKernels = "xla", is_repeatable: bool = False) -> Options:
    """On a CPU, those of `for_cpu_kernels`; on a GPU, if asked, those of `repeatable`."""
    if platform == "cpu":
        return for_cpu_kernels(cpu_kernels)
    return repeatable(platform) if is_repeatable else {}


def repeatable(platform: str) -> Options:
    """On a GPU, asks for operations that give the same bits at every call; on others they do without being asked.

    XLA then refuses select-and-scatter, and turns a scatter that adds floats at indices not known to be unique into a
    loop. What it costs is in docs/reliability.md. `XLA_FLAGS=--xla_gpu_exclude_nondeterministic_ops=false` undoes it.
    """
    return _unless_in_flags({"xla_gpu_exclude_nondeterministic_ops": True}) if platform == "gpu" else {}


def to_read_on_gpu() -> Options:
    """For a GPU program that nobody runs: less work on its machine code, the same text and memory."""
    return {"xla_gpu_disable_gpuasm_optimizations": True, "xla_backend_optimization_level": "1"}


def without_triton() -> Options:
    """Leaves matrix products on a GPU to cuBLAS."""
    return {"xla_gpu_enable_triton_gemm": False}


def _unless_in_flags(options: Options) -> Options:
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in flags}
