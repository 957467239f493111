"""The options that XLA gets for a program, by platform. jaxlib ends the process at a name it does not know."""

import os

Options = dict[str, str | bool]


def for_training_step(platform: str) -> Options:
    """On a CPU, the step is faster with LLVM's optimization level 2 than with 3 (benchmarks/NOTES.md).

    A level in XLA_FLAGS stays.
    """
    if platform != "cpu" or "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {"xla_backend_optimization_level": "2"}


def for_one_call(platform: str) -> Options:
    """On a CPU, a program that runs once is compiled fast, to the same bits (benchmarks/NOTES.md)."""
    if platform != "cpu":
        return {}
    return {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}
