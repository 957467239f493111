"""Puts what tools.plan predicts for this very program beside the time that was measured, on TPUs that it knows."""

from typing import Any

import jax

from yolox_jax.tools.plan.chips import CHIPS, GENERATION_OF_KIND, Topology
from yolox_jax.tools.plan.compiling import figures_of
from yolox_jax.tools.plan.report import make_report
from yolox_jax.tools.selfcheck.report import Line


def line(name: str, device: jax.Device, compiled: Any, batch_size: int, images_per_s: float) -> Line:
    """The prediction for a compiled training step of one device, and the share of it that was reached."""
    generation = GENERATION_OF_KIND.get(device.device_kind)
    if generation is None:
        return Line(f"plan {name}", "skipped", f"tools.plan has no data sheet of {device.device_kind}")
    topology = Topology(generation, (1,) * CHIPS[generation].dimensions)
    report = make_report(figures_of(compiled), topology, batch_size, argument_bytes={}, dtype="bfloat16")
    at_most = report["images_per_s_per_chip"]
    text = (
        f"{topology.generation}: at most {at_most:.0f} images/s, bound by {report['bound_by']}; "
        f"{images_per_s / at_most:.0%} of it measured; memory {report['peak_bytes'] / 1e9:.2f} GB"
    )
    figures = {key: report[key] for key in ("topology", "images_per_s_per_chip", "seconds", "bound_by", "peak_bytes")}
    return Line(f"plan {name}", "measured", text, figures)
