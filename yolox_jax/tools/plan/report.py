"""The report of a plan: figures of one chip, as a dict for JSON and as text."""

from typing import Any

from yolox_jax.tools.plan.cards import SHARE_FOR_JAX, Cards
from yolox_jax.tools.plan.collectives import describe, find_collectives
from yolox_jax.tools.plan.compiling import Compiled, OutOfMemory
from yolox_jax.tools.plan.devices import Devices, native_dtype_of
from yolox_jax.tools.plan.gpu_report import UNKNOWN, kernel_figures, warnings_of
from yolox_jax.tools.plan.hlo import parse
from yolox_jax.tools.plan.kernels import find_kernels
from yolox_jax.tools.plan.roofline import Work, roofline
from yolox_jax.tools.plan.traffic import hbm_bytes

# What the terminal shows for keys of --json.
_SHOWN = {"optimiser": "optimizer state", "EMA": "EMA weights", "padding of these": "padding of the above"}


def memory_of(devices: Devices) -> float:
    """Bytes of one chip that a program can have."""
    return devices.chip.hbm_bytes * (SHARE_FOR_JAX if isinstance(devices, Cards) else 1)


def make_report(
    compiled: Compiled | OutOfMemory, devices: Devices, batch_per_chip: int, argument_bytes: dict[str, int], dtype: str
) -> dict[str, Any]:
    """Collects all figures in bytes, FLOPs and seconds. For a program that does not fit, only the memory it needs.

    Args:
      compiled: result of `compile_for_chip` or `compile_for_cards`.
      devices: those that the program was compiled for. On TPU7x, "chip" means a device, which is half a chip.
      batch_per_chip: number of images.
      argument_bytes: sizes of state and batch, by kind.
      dtype: the compute dtype.
    """
    needed = compiled.peak_bytes if isinstance(compiled, Compiled) else compiled.needed_bytes
    report: dict[str, Any] = {
        "topology": devices.name,
        "unit": devices.unit,
        "num_chips": devices.num_chips,
        "num_devices": devices.num_devices,
        "batch_per_chip": batch_per_chip,
        "hbm_bytes_of_chip": memory_of(devices),
        "fits": isinstance(compiled, Compiled) and needed <= memory_of(devices),
        "peak_bytes": needed,
    }
    if isinstance(compiled, OutOfMemory):
        return report

    program = parse(compiled.text)
    collectives = find_collectives(program, devices.num_devices)
    sent_bytes = sum(each.sent_bytes for each in collectives)
    memory = argument_bytes | {
        "padding of these": compiled.argument_bytes - sum(argument_bytes.values()),
        "activations and temporaries": compiled.temporary_bytes,
        "program": compiled.code_bytes,
    }
    if isinstance(devices, Cards):
        kernels = find_kernels(program)
        moved = sum(kernel.num_bytes for kernel in kernels)
        own = kernel_figures(kernels, devices.chip, sent_bytes, batch_per_chip)
        own["warnings"] = warnings_of(kernels, compiled, devices.kind, native_dtype_of(devices), dtype)
        own["unknown"] = list(UNKNOWN)
    else:
        moved = hbm_bytes(program)
        roofs = roofline(Work(compiled.flops, moved, sent_bytes, batch_per_chip), devices.chip)
        own = {
            "bytes_accessed_per_step": compiled.bytes_accessed,
            "seconds": roofs.seconds,
            "seconds_by_part": {
                "matrix units": roofs.compute_s,
                "HBM bandwidth": roofs.memory_s,
                "interconnect": roofs.network_s,
            },
            "bound_by": roofs.bound_by,
            "images_per_s_per_chip": roofs.images_per_s,
        }
    return report | {
        "memory_bytes": memory,
        "flops_per_step": compiled.flops,
        "flops_per_image": compiled.flops / batch_per_chip,
        "hbm_bytes_per_step": moved,
        "hbm_bytes_per_image": moved / batch_per_chip,
        "collectives": describe(collectives),
        "num_collectives": len(collectives),
        "collective_bytes": sum(each.num_bytes for each in collectives),
        "sent_bytes": sent_bytes,
        **own,
        "images_per_s": own["images_per_s_per_chip"] * devices.num_devices,
    }


def as_text(report: dict[str, Any]) -> str:
    """Formats the report for the terminal: figures of one chip or card and one step; GB are 10⁹ bytes."""
    peak, capacity, unit = _gb(report["peak_bytes"]), _gb(report["hbm_bytes_of_chip"]), report["unit"]
    if "memory_bytes" not in report:
        return f"fits           no: needs {peak}, a {unit} has {capacity}"
    lines = [
        f"fits           {'yes' if report['fits'] else 'no'}: {peak} of {capacity} at the peak",
        "memory         by kind, not all at the same time",
    ]
    lines += [
        f"  {_SHOWN.get(kind, kind):<28} {_gb(num_bytes):>10}" for kind, num_bytes in report["memory_bytes"].items()
    ]
    lines += [
        f"FLOPs          {report['flops_per_step'] / 1e9:.1f} G, {report['flops_per_image'] / 1e9:.2f} G per image",
        f"HBM traffic    {_gb(report['hbm_bytes_per_step'])}, {_gb(report['hbm_bytes_per_image'])} per image",
    ]
    if "num_kernels" in report:
        lines += [
            f"kernels        {report['num_kernels']}, {report['num_small_kernels']} of them move less than 1 MiB",
            f"  convolutions                 {report['convolutions']}",
            f"  matrix products              {report['matrix_products']}",
        ]
    else:
        accessed = _gb(report["bytes_accessed_per_step"])
        lines += [f"  by the compiler's count, which includes on-chip memory: {accessed}"]
    exchanged = report["collectives"]
    if report["num_collectives"]:
        exchanged += f": {_mb(report['collective_bytes'])} of results; a {unit} sends {_mb(report['sent_bytes'])}"
    times = ", ".join(f"{part} {1e3 * seconds:.3g}" for part, seconds in report["seconds_by_part"].items())
    each, total = report["images_per_s_per_chip"], report["images_per_s"]
    lines += [
        f"collectives    {exchanged}",
        f"minimum time   {1e3 * report['seconds']:.3g} ms, bound by {report['bound_by']} ({times})",
        f"images/s       at most {each:.0f} per {unit}, {total:.0f} in total",
    ]
    lines += [f"warning        {warning}" for warning in report.get("warnings", ())]
    lines += [f"not known      {unknown}" for unknown in report.get("unknown", ())]
    return "\n".join(lines)


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.3f} GB"


def _mb(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.3f} MB"
