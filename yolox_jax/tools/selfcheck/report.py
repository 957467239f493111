"""The lines of the report: what passed, what failed and what was measured, for the terminal and as json."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Status = Literal["pass", "FAIL", "measured", "skipped"]

_WORDS: dict[Status, str] = {"pass": "passed", "FAIL": "failed", "measured": "measured", "skipped": "skipped"}
_STATUS_WIDTH, _NAME_WIDTH, _TEXT_WIDTH = 10, 22, 86  # columns of the table


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the report."""

    name: str
    status: Status
    text: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)  # for programs; JSON-serializable


def verdict(passed: bool) -> Status:
    """The status of a line that compares."""
    return "pass" if passed else "FAIL"


def as_text(line: Line) -> str:
    """Formats a line for the terminal; a long text is wrapped in its column."""
    first, *rest = textwrap.wrap(line.text, _TEXT_WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
    indent = " " * (_STATUS_WIDTH + _NAME_WIDTH)
    return "\n".join([f"{line.status:<{_STATUS_WIDTH}}{line.name:<{_NAME_WIDTH}}{first}", *(indent + x for x in rest)])


def summary(lines: Sequence[Line], seconds: float) -> str:
    """Counts the lines by status."""
    counts = [f"{sum(line.status == status for line in lines)} {word}" for status, word in _WORDS.items()]
    return f"{', '.join(counts)}; {seconds:.0f} s"


def as_json(lines: Sequence[Line], seconds_by_check: Mapping[str, float], is_complete: bool = True) -> dict[str, Any]:
    """Everything, for programs. `passed` is false if no line was compared at all, or some checks have not run yet."""
    found = {line.status for line in lines}
    return {
        "passed": is_complete and "pass" in found and "FAIL" not in found,
        "is_complete": is_complete,
        "lines": [_without_nan(dataclasses.asdict(line)) for line in lines],
        "seconds_by_check": dict(seconds_by_check),
    }


def _without_nan(value: Any) -> Any:
    """Replaces numbers that are not finite, which JSON does not have, by their names."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
