"""The figures of a plan that only GPUs have: kernels, their minimum time, warnings, and what cannot be known."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from yolox_jax.tools.plan.cards import Card
from yolox_jax.tools.plan.compiling import Compiled
from yolox_jax.tools.plan.kernels import Kernel
from yolox_jax.tools.plan.roofline import kernel_times

_SMALL = 2**20  # bytes; below it most kernels take the time of a kernel
_HALF = ("bfloat16", "float16")
UNKNOWN = (
    "cuDNN's algorithms and the tiles of products, which a card chooses by trying (autotuning); its way of sorting",
    "the workspace of cuDNN, which needs room too: of a card's memory, JAX takes 75 % unless told otherwise",
    "the time between kernels, taken to be none, and how far clocks stay below the data sheet's",
)


def kernel_figures(kernels: Sequence[Kernel], card: Card, sent_bytes: float, num_images: int) -> dict[str, Any]:
    """Counts kernels, and bounds their time: one runs after the other, beside the interconnect."""
    times = kernel_times(kernels, card)
    network_s = sent_bytes / card.link_bytes_per_s
    seconds = max(times.seconds, network_s)
    parts = {
        "matrix units": times.compute_s,
        "HBM bandwidth": times.memory_s,
        "kernel floor": times.floor_s,
        "interconnect": network_s,
    }
    return {
        "num_kernels": len(kernels),
        "num_small_kernels": sum(kernel.num_bytes < _SMALL for kernel in kernels),
        "convolutions": _described(kernel for kernel in kernels if kernel.kind == "convolution"),
        "matrix_products": _described(kernel for kernel in kernels if kernel.kind == "matrix product"),
        "flops_of_kernels": sum(kernel.flops for kernel in kernels),
        "seconds": seconds,
        "seconds_by_part": parts,
        "bound_by": max(parts, key=lambda part: parts[part]),
        "images_per_s_per_chip": num_images / seconds,
    }


def warnings_of(
    kernels: Sequence[Kernel], compiled: Compiled, card_name: str, native_dtype: str, dtype: str
) -> list[str]:
    """What in the compiled program costs time that another type, or a change of the program, would save."""
    convolutions = [kernel for kernel in kernels if kernel.kind == "convolution"]
    in_float32 = sum(kernel.dtype == "float32" for kernel in convolutions)
    nchw = sum(kernel.is_nchw for kernel in convolutions)
    found = []
    if dtype == "bfloat16" and native_dtype != "bfloat16":
        found.append(f"{card_name} has no bfloat16: give --dtype={native_dtype}")
    if in_float32 and (dtype in _HALF or native_dtype in _HALF):
        advice = "" if dtype == native_dtype else f"; the card is built for {native_dtype}"
        found.append(f"{in_float32} of {len(convolutions)} convolutions are in float32{advice}")
    if nchw:
        moved = sum(kernel.num_bytes for kernel in kernels if kernel.kind == "transpose")
        found.append(
            f"{nchw} of {len(convolutions)} convolutions are NCHW, while the network is NHWC: "
            f"transposes move {moved / 1e9:.2f} GB"
        )
    done = sum(kernel.flops for kernel in kernels)
    if done > 1.1 * compiled.flops:
        found.append(f"the kernels do {done / 1e9:.0f} GFLOP where {compiled.flops / 1e9:.0f} are asked for")
    if compiled.without_triton:
        found.append(
            "Triton found no tiles for a matrix product without a card, so this is the program with cuBLAS for all of "
            "them; a card tries both"
        )
    return found


def _described(kernels: Any) -> str:
    """Counts kernels by type: "92 bfloat16, 1 float32"."""
    counts = Counter(kernel.dtype + (" NCHW" if kernel.is_nchw else "") for kernel in kernels)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
