"""The checks, in the order in which they run: the ones that say whether results are right come first."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from yolox_jax.tools.selfcheck import agreement, detection_speed, device, resuming, training_speed
from yolox_jax.tools.selfcheck.report import Line, Status
from yolox_jax.tools.selfcheck.setting import Record, Setting, Size


@dataclasses.dataclass(frozen=True)
class Check:
    """A part of the examination that runs in a process of its own."""

    name: str
    lines: tuple[str, ...]  # the names of the lines that `run` records; of two with one name, the later one counts
    run: Callable[[Setting, Record], None]

    def complete(self, found: Sequence[Line], status: Status, reason: str) -> list[Line]:
        """Returns one line for each name; those that were not recorded get this status and reason."""
        by_name = {line.name: line for line in found}
        return [by_name.get(name, Line(name, status, reason)) for name in self.lines]


def all_checks(size: Size) -> tuple[Check, ...]:
    """The checks of a size."""
    outputs = tuple(f"outputs of {name}" for name in size.golden)
    return (
        Check("versions", ("versions",), device.versions),
        Check("device", ("device",), device.device),
        Check("float32", (*outputs, "assignments", "loss"), agreement.golden_in_float32),
        Check("own type", ("own type",), agreement.golden_in_own_type),
        Check("steps", ("donation", "no recompilation", "eight steps"), agreement.eight_steps),
        Check("resume", ("kill and resume",), resuming.check),
        Check("detection", ("detection latency", "detection throughput"), detection_speed.check),
        *(_training(name) for name in size.trained),
    )


def _training(name: str) -> Check:
    lines = tuple(f"{what} {name}" for what in ("training", "waiting", "profile", "plan"))
    return Check(f"training {name}", lines, functools.partial(training_speed.check, name=name))
