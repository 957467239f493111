"""Puts what tools.plan predicts for this very program beside the time that was measured, on devices that it knows."""

from typing import Any

import jax

from yolox_jax.tools.plan.cards import CARDS, Card
from yolox_jax.tools.plan.chips import CHIPS, GENERATION_OF_KIND, Topology
from yolox_jax.tools.plan.compiling import figures_of
from yolox_jax.tools.plan.gpu_report import kernel_figures
from yolox_jax.tools.plan.hlo import parse
from yolox_jax.tools.plan.kernels import find_kernels
from yolox_jax.tools.plan.report import make_report
from yolox_jax.tools.selfcheck.report import Line

_CARDS_BY_KIND = {card.device_kind: (name, card) for name, card in CARDS.items()}


def line(name: str, device: jax.Device, compiled: Any, batch_size: int, images_per_s: float) -> Line:
    """The prediction for a compiled training step of one device, and the share of it that was reached."""
    if device.device_kind in GENERATION_OF_KIND:
        predicted, report = _of_chip(GENERATION_OF_KIND[device.device_kind], compiled, batch_size)
    elif device.device_kind in _CARDS_BY_KIND:
        predicted, report = _of_card(*_CARDS_BY_KIND[device.device_kind], compiled, batch_size)
    else:
        return Line(f"plan {name}", "skipped", f"tools.plan has no data sheet of {device.device_kind}")
    at_most = report["images_per_s_per_chip"]
    text = f"{predicted}, bound by {report['bound_by']}; {images_per_s / at_most:.0%} of it measured"
    return Line(f"plan {name}", "measured", text, report)


def _of_chip(generation: str, compiled: Any, batch_size: int) -> tuple[str, dict[str, Any]]:
    topology = Topology(generation, (1,) * CHIPS[generation].dimensions)
    report = make_report(figures_of(compiled), topology, batch_size, argument_bytes={}, dtype="bfloat16")
    kept = {key: report[key] for key in ("topology", "images_per_s_per_chip", "seconds", "bound_by", "peak_bytes")}
    memory = f"in {report['peak_bytes'] / 1e9:.2f} GB"
    return f"{generation}: at most {report['images_per_s_per_chip']:.0f} images/s {memory}", kept


def _of_card(kind: str, card: Card, compiled: Any, batch_size: int) -> tuple[str, dict[str, Any]]:
    report = kernel_figures(find_kernels(parse(compiled.as_text())), card, 0.0, batch_size)
    at_most = f"at most {report['images_per_s_per_chip']:.0f} images/s by {report['num_kernels']} kernels"
    return f"{kind}: {at_most}", report
