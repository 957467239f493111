"""The options that XLA gets for a program, by platform. jaxlib ends the process at a name it does not know."""

import os

Options = dict[str, str | bool]


def for_training_step(platform: str) -> Options:
    """On a GPU, asks for a repeatable step. On a CPU, level 2 of LLVM is faster than level 3 (benchmarks/NOTES.md).

    What XLA_FLAGS says about either stays.
    """
    return _unless_in_flags({"xla_backend_optimization_level": "2"}) if platform == "cpu" else repeatable(platform)


def repeatable(platform: str) -> Options:
    """On a GPU, asks for operations that give the same bits at every call; on others they do without being asked.

    XLA then refuses select-and-scatter, and turns a scatter that adds floats at indices not known to be unique into a
    loop. What it costs is in docs/reliability.md. `XLA_FLAGS=--xla_gpu_exclude_nondeterministic_ops=false` undoes it.
    """
    return _unless_in_flags({"xla_gpu_exclude_nondeterministic_ops": True}) if platform == "gpu" else {}


def for_one_call(platform: str) -> Options:
    """On a CPU, a program that runs once is compiled fast, to the same bits (benchmarks/NOTES.md)."""
    if platform != "cpu":
        return {}
    return {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}


def to_read_on_gpu() -> Options:
    """For a GPU program that nobody runs: less work on its machine code, the same text and memory."""
    return {"xla_gpu_disable_gpuasm_optimizations": True, "xla_backend_optimization_level": "1"}


def without_triton() -> Options:
    """Leaves matrix products on a GPU to cuBLAS."""
    return {"xla_gpu_enable_triton_gemm": False}


def _unless_in_flags(options: Options) -> Options:
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in flags}
