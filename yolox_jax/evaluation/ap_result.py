"""ApResult: the result of an AP computation, in the same form for every metric."""

import dataclasses
from typing import Any, NamedTuple

UNDEFINED = -1.0  # COCO's value for an AP without ground-truth boxes
_TABLE_COLUMNS = 3
_MAX_NAME_WIDTH = 20


class ClassAp(NamedTuple):
    """AP and AP50 of a class, in [0, 1] or UNDEFINED, and its number of ground-truth boxes without crowds."""

    name: str
    AP: float
    AP50: float
    num_boxes: int


@dataclasses.dataclass(frozen=True)
class ApResult:
    """The metric's numbers by name, each in [0, 1] or UNDEFINED, always with AP and AP50; and the AP of each class."""

    stats: dict[str, float]
    per_class: tuple[ClassAp, ...]  # in the order of the labels
    # Of each class, AP of small, medium and large boxes; empty if the metric has no sizes. Not in results.json.
    class_ap_by_size: tuple[tuple[float, ...], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of results.json."""
        return {**self.stats, "per_class": [class_ap._asdict() for class_ap in self.per_class]}

    def table(self) -> str:
        """Formats the numbers (two lines) and the AP of each class as text, in percent."""
        names, values = list(self.stats), [_percent(value) for value in self.stats.values()]
        half = -(-len(names) // 2)
        lines = [
            "  ".join(f"{name:>9} {value:>5}" for name, value in zip(names[part], values[part], strict=True))
            for part in (slice(half), slice(half, None))
        ]
        width = max([len("class"), *(len(class_ap.name) for class_ap in self.per_class)])
        width = min(width, _MAX_NAME_WIDTH)
        columns = min(_TABLE_COLUMNS, len(self.per_class))
        cells = [f"{'class':<{width}} {'AP':>5} {'AP50':>5} {'boxes':>6}"] * columns
        for class_ap in self.per_class:
            numbers = f"{_percent(class_ap.AP):>5} {_percent(class_ap.AP50):>5} {class_ap.num_boxes:>6}"
            cells.append(f"{class_ap.name[:width]:<{width}} {numbers}")
        rows = [cells[i : i + columns] for i in range(0, len(cells), columns or 1)]
        return "\n".join([*lines, "", *("   ".join(row) for row in rows)])


def _percent(value: float) -> str:
    return "-" if value == UNDEFINED else f"{100 * value:.1f}"
