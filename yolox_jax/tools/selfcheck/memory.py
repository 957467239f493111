"""The memory of a device and of a program, and the search for the largest batch that fits."""

from collections.abc import Callable
from typing import Any

import jax

from yolox_jax.tools.plan.planner import largest_fit


def limit_bytes(device: jax.Device) -> int | None:
    """The memory that JAX may use on a device; None if the device does not report it, as a CPU."""
    return (device.memory_stats() or {}).get("bytes_limit")


def peak_bytes(device: jax.Device) -> int | None:
    """The most memory that this process has used on a device; None if the device does not report it.

    JAX cannot reset it: what a part of the process used is known only if it rose meanwhile.
    """
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


def program_bytes(compiled: Any) -> int:
    """The memory of a compiled program's arguments, results and temporaries together, by the compiler's count."""
    sizes = compiled.memory_analysis()
    if sizes is None:  # not every backend reports it
        return 0
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes  # donated arguments are results too
        + sizes.temp_size_in_bytes
    )


def is_out_of_memory(error: Exception) -> bool:
    """True if JAX reports that a device, or the chip that a program is compiled for, lacks memory."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def largest_batch(fits: Callable[[int], bool], first: int, most: int, predict: Callable[[], float]) -> int:
    """Finds the largest power of two that fits, by bisection over the powers from 1 to `most`; 0 if none fits.

    A trial costs a compilation, so the first one predicts where to look.

    Args:
      fits: whether a batch fits; it must fit if a larger one does.
      first: the first batch to try, a power of two.
      most: a power of two.
      predict: called once `first` fits: the largest batch that the memory probably holds.
    """
    fitting = 0

    def fits_power(number: int) -> bool:  # counted from 1, as largest_fit does
        nonlocal fitting
        batch = 2 ** (number - 1)
        if batch > fitting and fits(batch):
            fitting = batch
        return batch <= fitting

    start, limit = first.bit_length(), most.bit_length()
    if fits_power(start):
        predicted = max(start, min(int(predict()).bit_length(), limit))
        largest_fit(fits_power, predicted, min(predicted + 1, limit))
    else:
        largest_fit(fits_power, max(start - 1, 1), start - 1)
    return fitting
