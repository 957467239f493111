"""The minimum time of a step on a chip, and the resource that bounds it."""

import dataclasses
from collections.abc import Sequence

from yolox_jax.tools.plan.cards import Card
from yolox_jax.tools.plan.chips import Chip
from yolox_jax.tools.plan.kernels import Kernel

# From the start of a GPU's kernel to that of the next in a CUDA graph: an assumption, on the low side.
KERNEL_S = 2e-6


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of one chip in one step."""

    flops: float
    hbm_bytes: float  # read and written
    sent_bytes: float  # to other chips
    num_images: int


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The minimum time for each resource of a chip; the step takes at least the longest."""

    compute_s: float
    memory_s: float
    network_s: float
    images_per_s: float  # of one chip

    @property
    def seconds(self) -> float:
        return max(self.compute_s, self.memory_s, self.network_s)

    @property
    def bound_by(self) -> str:
        times = {"matrix units": self.compute_s, "HBM bandwidth": self.memory_s, "interconnect": self.network_s}
        return max(times, key=lambda part: times[part])


def roofline(work: Work, chip: Chip) -> Roofline:
    """Bounds the time of a step by compute, memory bandwidth and interconnect.

    Source: Williams et al., "Roofline" (CACM 2009); the interconnect is a third roof.
    """
    compute_s = work.flops / chip.flops_per_s
    memory_s = work.hbm_bytes / chip.hbm_bytes_per_s
    network_s = work.sent_bytes / chip.ici_bytes_per_s
    return Roofline(compute_s, memory_s, network_s, work.num_images / max(compute_s, memory_s, network_s))


@dataclasses.dataclass(frozen=True)
class KernelTimes:
    """The minimum time of a GPU's kernels, one after the other, divided by what bounds each of them."""

    compute_s: float
    memory_s: float
    floor_s: float  # of kernels that take the time of a kernel

    @property
    def seconds(self) -> float:
        return self.compute_s + self.memory_s + self.floor_s


def kernel_times(kernels: Sequence[Kernel], card: Card) -> KernelTimes:
    """Bounds each kernel by its FLOPs, its bytes, or KERNEL_S."""
    times = {"compute_s": 0.0, "memory_s": 0.0, "floor_s": 0.0}
    for kernel in kernels:
        own = {
            "compute_s": kernel.flops / card.flops_per_s.get(kernel.dtype, card.flops_per_s["float32"]),
            "memory_s": kernel.num_bytes / card.hbm_bytes_per_s,
            "floor_s": KERNEL_S,
        }
        bound = max(own, key=lambda part: own[part])
        times[bound] += own[bound]
    return KernelTimes(**times)
