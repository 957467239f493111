"""The report of a plan: figures of one chip, as a dict for JSON and as text."""

from typing import Any

from yolox_jax.tools.plan.chips import Topology
from yolox_jax.tools.plan.collectives import describe, find_collectives
from yolox_jax.tools.plan.compiling import Compiled, OutOfMemory
from yolox_jax.tools.plan.hlo import parse
from yolox_jax.tools.plan.roofline import Work, roofline
from yolox_jax.tools.plan.traffic import hbm_bytes

# What the terminal shows for keys of --json.
_SHOWN = {"optimiser": "optimizer state", "EMA": "EMA weights", "padding of these": "padding of the above"}


def make_report(
    compiled: Compiled | OutOfMemory, topology: Topology, batch_per_chip: int, argument_bytes: dict[str, int]
) -> dict[str, Any]:
    """Collects all figures in bytes, FLOPs and seconds. For a program that does not fit, only the memory it needs.

    Args:
      compiled: result of `compile_for_chip`.
      topology: the slice that the program was compiled for. On TPU7x, "chip" means a device, which is half a chip.
      batch_per_chip: number of images.
      argument_bytes: sizes of state and batch, by kind.
    """
    chip = topology.chip
    report: dict[str, Any] = {
        "topology": topology.name,
        "num_chips": topology.num_chips,
        "num_devices": topology.num_devices,
        "batch_per_chip": batch_per_chip,
        "hbm_bytes_of_chip": chip.hbm_bytes,
        "fits": isinstance(compiled, Compiled),
    }
    if isinstance(compiled, OutOfMemory):
        return report | {"peak_bytes": compiled.needed_bytes}

    program = parse(compiled.text)
    collectives = find_collectives(program, topology.num_devices)
    work = Work(
        flops=compiled.flops,
        hbm_bytes=hbm_bytes(program),
        sent_bytes=sum(each.sent_bytes for each in collectives),
        num_images=batch_per_chip,
    )
    roofs = roofline(work, chip)
    memory = argument_bytes | {
        "padding of these": compiled.argument_bytes - sum(argument_bytes.values()),
        "activations and temporaries": compiled.temporary_bytes,
        "program": compiled.code_bytes,
    }
    return report | {
        "peak_bytes": compiled.peak_bytes,
        "memory_bytes": memory,
        "flops_per_step": work.flops,
        "flops_per_image": work.flops / batch_per_chip,
        "hbm_bytes_per_step": work.hbm_bytes,
        "hbm_bytes_per_image": work.hbm_bytes / batch_per_chip,
        "bytes_accessed_per_step": compiled.bytes_accessed,
        "collectives": describe(collectives),
        "num_collectives": len(collectives),
        "collective_bytes": sum(each.num_bytes for each in collectives),
        "sent_bytes": work.sent_bytes,
        "seconds": roofs.seconds,
        "seconds_by_part": {
            "matrix units": roofs.compute_s,
            "HBM bandwidth": roofs.memory_s,
            "interconnect": roofs.network_s,
        },
        "bound_by": roofs.bound_by,
        "images_per_s_per_chip": roofs.images_per_s,
        "images_per_s": roofs.images_per_s * topology.num_devices,
    }


def as_text(report: dict[str, Any]) -> str:
    """Formats the report for the terminal: figures per chip and step unless a line says otherwise; GB are 10⁹ bytes."""
    peak, capacity = _gb(report["peak_bytes"]), _gb(report["hbm_bytes_of_chip"])
    if not report["fits"]:
        return f"fits           no: needs {peak}, a chip has {capacity}"
    times = ", ".join(f"{part} {1e3 * seconds:.3g}" for part, seconds in report["seconds_by_part"].items())
    lines = [
        f"fits           yes: {peak} of {capacity} at the peak",
        "memory         by kind, not all at the same time",
    ]
    lines += [
        f"  {_SHOWN.get(kind, kind):<28} {_gb(num_bytes):>10}" for kind, num_bytes in report["memory_bytes"].items()
    ]
    exchanged = report["collectives"]
    if report["num_collectives"]:
        exchanged += f": {_mb(report['collective_bytes'])} of results; a chip sends {_mb(report['sent_bytes'])}"
    traffic, accessed = report["hbm_bytes_per_step"], report["bytes_accessed_per_step"]
    lines += [
        f"FLOPs          {report['flops_per_step'] / 1e9:.1f} G, {report['flops_per_image'] / 1e9:.2f} G per image",
        f"HBM traffic    {_gb(traffic)}, {_gb(report['hbm_bytes_per_image'])} per image",
        f"  by the compiler's count, which includes on-chip memory: {_gb(accessed)}",
        f"collectives    {exchanged}",
        f"minimum time   {1e3 * report['seconds']:.3g} ms, bound by {report['bound_by']} ({times})",
        f"images/s       at most {report['images_per_s_per_chip']:.0f} per chip, {report['images_per_s']:.0f} in total",
    ]
    return "\n".join(lines)


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.3f} GB"


def _mb(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.3f} MB"
